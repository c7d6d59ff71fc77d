"""Gathers the analyses of the runs of each condition, and checks what their files hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sam.record.analyses import Analysis, read_analyses
from sam.record.reader import Run
from sam.record.values import number
from sam.report.families import families
from sam.report.groups import Group

# Two analyses are made alike where they agree in these; what else they were asked for only adds numbers.
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
        by_seed: The analyses of each seed that has any, by epoch.
    """

    group: Group
    by_seed: dict[int, list[Analysis]]

    @property
    def analyses(self) -> list[Analysis]:
        """Those of all seeds."""
        return [analysis for analyses in self.by_seed.values() for analysis in analyses]

    @property
    def epochs(self) -> list[int]:
        """Every epoch at which some seed was looked at."""
        return sorted({analysis.epoch for analysis in self.analyses})


class Rise(NamedTuple):
    """How far loss and error rise in the ball: one row of a sharpness analysis.

    Attributes:
        m: Images that share one perturbation.
        ascent_steps: Steps of the inner maximisation.
        loss: Mean rise of the loss.
        standard_error: Of the loss rise over the subsets of m images; None for a single one.
        error_points: Mean rise of the error, in percentage points.
        num_subsets: Of m images.
    """

    m: int
    ascent_steps: int
    loss: float
    standard_error: float | None
    error_points: float
    num_subsets: int


def gather(groups: Sequence[Group], name: str, **settings: Any) -> list[Measured]:
    """Read the analyses of one kind, of all complete runs.

    Within a setting only those are kept that were made alike, in the way that most of them were: same
    images, same ball.

    Args:
        groups: Conditions, in the order of the answer.
        name: Kind of analysis.
        settings: What it must have been asked for, such as dimensions=2.

    Returns:
        The conditions with an analysis, those of one setting next to each other.

    Raises:
        ValueError: If there is none; it says how to make one.
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
    """Part conditions by setting, in the order of their first ones.

    Args:
        measured: Conditions of any settings.
    """
    of_group = {one.group.key: one for one in measured}
    found = families(one.group for one in measured)
    return [[of_group[group.key] for group in family.groups] for family in found]


def largest_comparison(measured: Sequence[Measured]) -> list[Measured]:
    """Return the conditions of the setting that has most of them, and of those the one with most analyses.

    Args:
        measured: At least one.
    """
    return max(
        by_setting(measured), key=lambda members: (len(members), sum(len(one.analyses) for one in members))
    )


def made_alike(members: Sequence[Measured]) -> list[Measured]:
    """Keep the analyses that look at the same images in the same way: the way that most of them do.

    Args:
        members: Conditions that are held against each other, with analyses of one kind.

    Returns:
        Those that have any such analysis.
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
    """Read the rows of a sharpness analysis; those whose rise is not finite are left out.

    Raises:
        ValueError: If the file holds none.
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
    """Return the rises after an epoch by m and ascent steps, joined from all analyses of it; the last counts.

    Args:
        analyses: Of one run, made alike.
        epoch: After which they looked.

    Raises:
        ValueError: If one of them holds no finite rise.
    """
    rows = [row for analysis in analyses if analysis.epoch == epoch for row in rises(analysis)]
    return {(row.m, row.ascent_steps): row for row in rows}


def final_rises(members: Sequence[Measured]) -> tuple[int, list[dict[int, dict[int, Rise]]]]:
    """Return the rises after the last epoch that was looked at, with one number of ascent steps for all.

    It is the number that most seeds have, of several the smallest; a seed that lacks it is left out.

    Args:
        members: Conditions that are held against each other, with sharpness analyses made alike.

    Returns:
        The number of ascent steps; for each condition, the rises by seed and m.

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
    """Say where a sharpness analysis looked for the highest loss."""
    kind = "an adaptive ball" if analysis.settings.get("adaptive") else "a ball"
    return f"{kind} of radius {analysis.settings.get('rho')}"


def steps_text(ascent_steps: int) -> str:
    """Return a number of ascent steps in words."""
    return f"{ascent_steps} ascent step" + "s" * (ascent_steps > 1)


def value_of(analysis: Analysis, key: str) -> float:
    """Read one number of a result.

    Raises:
        ValueError: If it is not there or not finite.
    """
    value = number(analysis.result.get(key))
    if value is None:
        raise ValueError(f"{analysis.path}: its {key} is no finite number; run the analysis again")
    return value


def values_of_list(analysis: Analysis, key: str) -> list[float]:
    """Read a list of numbers of a result, those left out that are not finite.

    Raises:
        ValueError: If none is left.
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
