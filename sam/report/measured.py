"""Reads the analyses of the runs of each condition, and checks the numbers in their files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sam.record.analyses import Analysis, read_analyses
from sam.record.reader import Run
from sam.record.values import number
from sam.report.families import families
from sam.report.groups import Group

# Analyses can be compared if they agree in these settings. All other settings only add more numbers.
ALIKE = {
    "sharpness": ("rho", "adaptive", "ascent_step_size"),
    "hessian": ("steps", "probes"),
    "landscape": ("directions", "dimensions", "span", "points"),
    "second_order": (),
}


@dataclass(frozen=True)
class Measured:
    """A condition with the analyses of its runs.

    Attributes:
        group: The condition.
        by_seed: For each seed with analyses, its analyses sorted by epoch.
    """

    group: Group
    by_seed: dict[int, list[Analysis]]

    @property
    def analyses(self) -> list[Analysis]:
        """The analyses of all seeds."""
        return [analysis for analyses in self.by_seed.values() for analysis in analyses]

    @property
    def epochs(self) -> list[int]:
        """Every epoch after which some seed was analysed."""
        return sorted({analysis.epoch for analysis in self.analyses})


class Rise(NamedTuple):
    """The rise of loss and error within the ball: one row of a sharpness analysis.

    Attributes:
        m: Number of images that share one perturbation.
        ascent_steps: Number of steps of the inner maximisation.
        loss: Mean rise of the loss.
        standard_error: Standard error of the loss rise over the subsets; None for a single subset.
        error_points: Mean rise of the error, in percentage points.
        num_subsets: Number of subsets of m images.
    """

    m: int
    ascent_steps: int
    loss: float
    standard_error: float | None
    error_points: float
    num_subsets: int


def gather(groups: Sequence[Group], name: str, **settings: Any) -> list[Measured]:
    """Read the analyses of one kind from all complete runs.

    Within a setting, only comparable analyses are kept: those with the most frequent images and settings.

    Args:
        groups: Conditions; the result has the same order.
        name: Kind of analysis.
        settings: Settings that an analysis must have, such as dimensions=2.

    Returns:
        The conditions with an analysis; those of one setting are next to each other.

    Raises:
        ValueError: If there is no such analysis; the message shows the command that makes one.
    """
    found = []
    for group in groups:
        by_seed = {seed: _of_run(run, name, settings) for seed, run in _runs(group).items()}
        found.append(Measured(group, {seed: made for seed, made in by_seed.items() if made}))
    kept = [measured for members in by_setting(found) for measured in made_alike(members)]
    if not kept:
        asked = "".join(f" analysis.{key}={value}" for key, value in settings.items())
        raise ValueError(
            f"no {name} analysis in {sum(len(group.complete) for group in groups)} complete runs; make one "
            f"with: python evaluate.py run=RUN_DIRECTORY analysis={name}{asked}"
        )
    return kept


def by_setting(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Group conditions by setting, in the order of the first condition of each setting.

    Args:
        measured: Conditions of any settings.
    """
    of_group = {one.group.key: one for one in measured}
    found = families(one.group for one in measured)
    return [[of_group[group.key] for group in family.groups] for family in found]


def largest_comparison(measured: Sequence[Measured]) -> list[Measured]:
    """Return the conditions of the setting with the most conditions, then with the most analyses.

    Args:
        measured: At least one condition.
    """
    return max(
        by_setting(measured), key=lambda members: (len(members), sum(len(one.analyses) for one in members))
    )


def made_alike(members: Sequence[Measured]) -> list[Measured]:
    """Keep the analyses with the most frequent images and settings, so that all can be compared.

    Args:
        members: Conditions of one comparison, with analyses of one kind.

    Returns:
        The conditions that still have an analysis.
    """
    ways = Counter(_way(analysis) for measured in members for analysis in measured.analyses)
    if not ways:
        return []
    commonest = ways.most_common(1)[0][0]
    kept = []
    for measured in members:
        by_seed = {
            seed: [analysis for analysis in analyses if _way(analysis) == commonest]
            for seed, analyses in measured.by_seed.items()
        }
        kept.append(Measured(measured.group, {seed: alike for seed, alike in by_seed.items() if alike}))
    return [measured for measured in kept if measured.by_seed]


def rises(analysis: Analysis) -> list[Rise]:
    """Read the rows of a sharpness analysis; rows without a finite rise are left out.

    Raises:
        ValueError: If no row is left.
    """
    rows = analysis.result.get("rows")
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        values = [number(row.get(key)) for key in ("m", "ascent_steps", "loss_rise", "error_rise_points")]
        m, steps, loss, points = values
        if m is not None and steps is not None and loss is not None and points is not None:
            error, subsets = number(row.get("loss_rise_standard_error")), number(row.get("num_subsets"))
            found.append(Rise(int(m), int(steps), loss, error, points, int(subsets or 1)))
    if not found:
        raise ValueError(f"{analysis.path}: no finite rise in it; run the analysis again")
    return found


def rises_at(analyses: Sequence[Analysis], epoch: int) -> dict[tuple[int, int], Rise]:
    """Return the rises after an epoch by m and ascent steps, merged over its analyses; the last one wins.

    Args:
        analyses: Comparable analyses of one run.
        epoch: Number of epochs before the analysis.

    Raises:
        ValueError: If one of them holds no finite rise.
    """
    rows = [row for analysis in analyses if analysis.epoch == epoch for row in rises(analysis)]
    return {(row.m, row.ascent_steps): row for row in rows}


def final_rises(members: Sequence[Measured]) -> tuple[int, list[dict[int, dict[int, Rise]]]]:
    """Return the rises after each run's last analysed epoch, all for one number of ascent steps.

    This is the number that most seeds have; in a tie, the smallest. A seed without it is left out.

    Args:
        members: Conditions of one comparison, with comparable sharpness analyses.

    Returns:
        The number of ascent steps, and for each condition the rises by seed and m.

    Raises:
        ValueError: If an analysis holds no finite rise.
    """
    last = [
        {seed: rises_at(made, max(look.epoch for look in made)) for seed, made in one.by_seed.items()}
        for one in members
    ]
    counts = Counter(steps for one in last for rows in one.values() for steps in {key[1] for key in rows})
    chosen = min(counts, key=lambda steps: (-counts[steps], steps), default=1)
    found: list[dict[int, dict[int, Rise]]] = [{} for _ in members]
    for kept, one in zip(found, last, strict=True):
        for seed, rows in one.items():
            if by_m := {m: row for (m, steps), row in rows.items() if steps == chosen}:
                kept[seed] = by_m
    return chosen, found


def ball(analysis: Analysis) -> str:
    """Describe the ball in which a sharpness analysis searched for the highest loss."""
    kind = "an adaptive ball" if analysis.settings.get("adaptive") else "a ball"
    return f"{kind} of radius {analysis.settings.get('rho')}"


def steps_text(ascent_steps: int) -> str:
    """Return a text such as "3 ascent steps"."""
    return f"{ascent_steps} ascent step" + "s" * (ascent_steps > 1)


def value_of(analysis: Analysis, key: str) -> float:
    """Read one number of a result.

    Raises:
        ValueError: If the number is missing or not finite.
    """
    value = number(analysis.result.get(key))
    if value is None:
        raise ValueError(f"{analysis.path}: its {key} is not a finite number; run the analysis again")
    return value


def values_of_list(analysis: Analysis, key: str) -> list[float]:
    """Read a list of numbers of a result; values that are not finite are left out.

    Raises:
        ValueError: If no number is left.
    """
    values = analysis.result.get(key)
    items = values if isinstance(values, list) else []
    found = [value for item in items if (value := number(item)) is not None]
    if not found:
        raise ValueError(f"{analysis.path}: no finite number in its {key}; run the analysis again")
    return found


def _runs(group: Group) -> dict[int, Run]:
    return {run.result["seed"]: run for run in group.complete if run.result}


def _of_run(run: Run, name: str, settings: dict[str, Any]) -> list[Analysis]:
    found = read_analyses(run.directory, name)[0]
    return [made for made in found if all(made.settings.get(key) == settings[key] for key in settings)]


def _way(analysis: Analysis) -> tuple[str, ...]:
    asked = (analysis.settings.get(key) for key in ALIKE[analysis.name])
    sample = (analysis.record.get(key) for key in ("split", "num_images", "statistics"))
    return tuple(str(value) for value in (*asked, *sample))
