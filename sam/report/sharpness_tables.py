"""Tables of the sharpness of each condition: curvature and m-sharpness, with paired differences to SGD."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from sam.record.analyses import Analysis
from sam.record.values import number
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate, paired_difference
from sam.report.markup import NOTHING
from sam.report.measured import Measured, ball, by_setting, gather, rises_at
from sam.report.settings import setting_titles
from sam.report.text_tables import TextTable

Key = TypeVar("Key", bound=Hashable)

CURVATURES = {
    "lambda_max": "Largest eigenvalue",
    "lambda_max_over_5": "Largest over fifth",
    "trace": "Trace",
}


class SharpnessTable(NamedTuple):
    """The analyses of one kind, for all conditions of one setting.

    Attributes:
        setting_key: The key of the setting.
        title: The title of the setting.
        caption: What was measured, on which images, after which epoch.
        text: The table.
    """

    setting_key: str
    title: str
    caption: str
    text: TextTable


def sharpness_tables(groups: Sequence[Group]) -> list[SharpnessTable]:
    """Return tables of the curvature and the m-sharpness of the conditions of each setting.

    Each number is the mean over seeds with its 95 % Student-t interval, after the epoch with the most
    analysed runs. It shows its n if that is not the n of the row. The difference is paired, over the seeds
    that the condition and SGD both have.

    Args:
        groups: Conditions; the analyses are read from the directories of their complete runs.

    Returns:
        The tables, setting by setting.
    """
    titles = setting_titles(group.setting for group in groups)
    tables = []
    for name, lay_out in (("hessian", _hessian), ("sharpness", _sharpness)):
        for members in _gather(groups, name):
            key = members[0].group.setting.key
            tables.append(SharpnessTable(key, titles[key], *lay_out(members)))
    order = list(titles)
    return sorted(tables, key=lambda table: order.index(table.setting_key))


def format_figures(value: Estimate | None, num_runs: int, sign: str = "") -> str:
    """Write a mean with its interval to three significant digits of the mean.

    Args:
        value: A mean in any unit; None gives a dash.
        num_runs: The n of the row.
        sign: "+" to show the sign of positive numbers too.

    Returns:
        A text such as "0.0123 ± 0.0040 (n = 3)".
    """
    if value is None:
        return NOTHING
    size = max(abs(value.mean), value.half_width or 0.0)
    digits = min(max(2 - math.floor(math.log10(size)), 0), 8) if size else 0
    width = "" if value.half_width is None else f" ± {value.half_width:.{digits}f}"
    text = f"{value.mean:{sign}.{digits}f}{width}"
    return text if value.num_values == num_runs else f"{text} (n = {value.num_values})"


def _gather(groups: Sequence[Group], name: str) -> list[list[Measured]]:
    try:
        return by_setting(gather(groups, name))
    except ValueError:
        # There are none.
        return []


def _hessian(members: Sequence[Measured]) -> tuple[str, TextTable]:
    epoch = _commonest_epoch(members)
    found = [{seed: _figures(made, epoch) for seed, made in one.by_seed.items()} for one in members]
    counts = [sum(bool(figures) for figures in by_seed.values()) for by_seed in found]
    header, rows = ["Method"], [[one.group.label] for one in members]
    for name, words in CURVATURES.items():
        header += [words, f"{words}: difference to SGD"]
        for row, cells in zip(rows, _estimates(members, found, name, counts), strict=True):
            row += cells
    for row, count in zip(rows, counts, strict=True):
        row.append(str(count))
    return f"Curvature of the loss {_where(members, epoch)}", TextTable([*header, "n"], rows)


def _sharpness(members: Sequence[Measured]) -> tuple[str, TextTable]:
    epoch = _commonest_epoch(members)
    found = [{seed: _losses(made, epoch) for seed, made in one.by_seed.items()} for one in members]
    keys = sorted({key for by_seed in found for losses in by_seed.values() for key in losses})
    many_steps = len({steps for _, steps in keys}) > 1
    rows = []
    for key in keys:
        counts = [sum(key in losses for losses in by_seed.values()) for by_seed in found]
        cells = _estimates(members, found, key, counts)
        for one, count, (mean, difference) in zip(members, counts, cells, strict=True):
            asked = map(str, key if many_steps else key[:1])
            rows.append([one.group.label, *asked, mean, difference, str(count)])
    asked_header = ["m", "Ascent steps"] if many_steps else ["m"]
    header = ["Method", *asked_header, "Rise of the loss", "Difference to SGD", "n"]
    where = f"{ball(members[0].analyses[0])}, {_where(members, epoch)}"
    return f"m-sharpness in {where}", TextTable(header, rows)


def _figures(analyses: Sequence[Analysis], epoch: int) -> dict[str, float]:
    """Return the curvatures of a run after an epoch; each is from the last analysis that has it."""
    return {
        name: value
        for made in analyses
        if made.epoch == epoch
        for name in CURVATURES
        if (value := number(made.result.get(name))) is not None
    }


def _losses(analyses: Sequence[Analysis], epoch: int) -> dict[tuple[int, int], float]:
    """Return the rise of the loss by m and ascent steps, merged over all readable analyses of an epoch."""
    losses: dict[tuple[int, int], float] = {}
    for made in analyses:
        # A broken file is skipped.
        with suppress(ValueError):
            losses |= {key: rise.loss for key, rise in rises_at([made], epoch).items()}
    return losses


def _estimates(
    members: Sequence[Measured],
    found: Sequence[Mapping[int, Mapping[Key, float]]],
    key: Key,
    counts: Sequence[int],
) -> list[tuple[str, str]]:
    """Return mean and difference to SGD of one number, for each condition, from its values per seed."""
    known = [{seed: figures[key] for seed, figures in by_seed.items() if key in figures} for by_seed in found]
    baselines = [one for one, made in zip(known, members, strict=True) if not made.group.is_sam]
    # Two SGD conditions in one setting differ in something unknown, so neither can be the baseline.
    baseline = baselines[0] if len(baselines) == 1 else {}
    return [
        (
            format_figures(estimate(list(one.values())), count),
            NOTHING if one is baseline else format_figures(paired_difference(one, baseline), count, sign="+"),
        )
        for one, count in zip(known, counts, strict=True)
    ]


def _commonest_epoch(members: Sequence[Measured]) -> int:
    counts = Counter(
        epoch for one in members for made in one.by_seed.values() for epoch in {look.epoch for look in made}
    )
    return max(counts, key=lambda epoch: (counts[epoch], epoch))


def _where(members: Sequence[Measured], epoch: int) -> str:
    record = members[0].analyses[0].record
    statistics = "running" if record.get("statistics") == "evaluation" else "batch"
    return (
        f"after epoch {epoch}, on {record.get('num_images')} {record.get('split')} images "
        f"with {statistics} statistics of batch norm"
    )
