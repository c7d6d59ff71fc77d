"""How sharp the minima of each condition are: curvature and m-sharpness, SAM beside SGD, seed by seed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sam.report.analyses import Analysis
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate, paired_difference
from sam.report.markup import NOTHING
from sam.report.measured import Measured, by_setting, gather, rises
from sam.report.runs import number
from sam.report.settings import setting_titles
from sam.report.text_tables import TextTable

CURVATURES = {
    "lambda_max": "Largest eigenvalue",
    "lambda_max_over_5": "Largest over fifth",
    "trace": "Trace",
}


class SharpnessTable(NamedTuple):
    """What analyses of one kind say of the conditions of one setting.

    Attributes:
        setting_key: Of the setting.
        title: Of the setting.
        caption: What was measured, on which images, after which epoch.
        text: The table.
    """

    setting_key: str
    title: str
    caption: str
    text: TextTable


def sharpness_tables(groups: Sequence[Group]) -> list[SharpnessTable]:
    """Lay out the curvature and the m-sharpness of the conditions of each setting.

    Each number is the mean over seeds with its 95 % Student-t interval, after the epoch at which most runs
    were looked at. The difference is paired, over the seeds that the condition and SGD both have.

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


def format_figures(value: Estimate | None, sign: str = "") -> str:
    """Write a mean with its interval to three significant digits of the mean.

    Args:
        value: In any unit; None gives a dash.
        sign: "+" to show the sign of positive numbers too.

    Returns:
        Such as "0.0123 ± 0.0040".
    """
    if value is None:
        return NOTHING
    size = max(abs(value.mean), value.half_width or 0.0)
    digits = min(max(2 - math.floor(math.log10(size)), 0), 8) if size else 0
    width = "" if value.half_width is None else f" ± {value.half_width:.{digits}f}"
    return f"{value.mean:{sign}.{digits}f}{width}"


def _gather(groups: Sequence[Group], name: str) -> list[list[Measured]]:
    try:
        return by_setting(gather(groups, name))
    except ValueError:
        # There are none.
        return []


def _hessian(members: Sequence[Measured]) -> tuple[str, TextTable]:
    epoch = _commonest_epoch(members)
    looked_at = [_at(one, epoch) for one in members]
    header, rows = ["Method"], [[one.group.label] for one in members]
    for name, words in CURVATURES.items():
        header += [words, f"{words}: difference to SGD"]
        values = [
            {seed: number(made.result.get(name)) for seed, made in found.items()} for found in looked_at
        ]
        for row, cells in zip(rows, _estimates(members, values), strict=True):
            row += cells
    for row, found in zip(rows, looked_at, strict=True):
        row.append(str(len(found)))
    return f"Curvature of the loss {_where(members, epoch)}", TextTable([*header, "n"], rows)


def _sharpness(members: Sequence[Measured]) -> tuple[str, TextTable]:
    epoch = _commonest_epoch(members)
    found = [{seed: _losses(made) for seed, made in _at(one, epoch).items()} for one in members]
    balls = sorted({ball for by_seed in found for losses in by_seed.values() for ball in losses})
    many_steps = len({steps for _, steps in balls}) > 1
    rows = []
    for m, steps in balls:
        values = [{seed: losses.get((m, steps)) for seed, losses in by_seed.items()} for by_seed in found]
        cells = _estimates(members, values)
        for one, by_seed, (mean, difference) in zip(members, found, cells, strict=True):
            ball = [str(m), str(steps)] if many_steps else [str(m)]
            rows.append([one.group.label, *ball, mean, difference, str(len(by_seed))])
    ball_header = ["m", "Ascent steps"] if many_steps else ["m"]
    header = ["Method", *ball_header, "Rise of the loss", "Difference to SGD", "n"]
    rho = members[0].analyses[0].settings.get("rho")
    return f"m-sharpness in a ball of radius {rho}, {_where(members, epoch)}", TextTable(header, rows)


def _losses(analysis: Analysis) -> dict[tuple[int, int], float]:
    """Return the rise of the loss by m and ascent steps; nothing for a broken file."""
    try:
        return {(rise.m, rise.ascent_steps): rise.loss for rise in rises(analysis)}
    except ValueError:
        return {}


def _estimates(
    members: Sequence[Measured], values: Sequence[Mapping[int, float | None]]
) -> list[tuple[str, str]]:
    """Return mean and difference to SGD for each condition, from one value per seed."""
    known = [{seed: value for seed, value in one.items() if value is not None} for one in values]
    baselines = [one for one, made in zip(known, members, strict=True) if not made.group.is_sam]
    # Two SGD conditions in one setting differ in something unknown: neither is the one to beat.
    baseline = baselines[0] if len(baselines) == 1 else {}
    return [
        (
            format_figures(estimate(list(one.values()))),
            NOTHING if one is baseline else format_figures(paired_difference(one, baseline), sign="+"),
        )
        for one in known
    ]


def _commonest_epoch(members: Sequence[Measured]) -> int:
    counts = Counter(
        epoch for one in members for made in one.by_seed.values() for epoch in {look.epoch for look in made}
    )
    return max(counts, key=lambda epoch: (counts[epoch], epoch))


def _at(measured: Measured, epoch: int) -> dict[int, Analysis]:
    """Return the last analysis of each seed at an epoch."""
    return {
        seed: made for seed, all_made in measured.by_seed.items() for made in all_made if made.epoch == epoch
    }


def _where(members: Sequence[Measured], epoch: int) -> str:
    record = members[0].analyses[0].record
    statistics = "running" if record.get("statistics") == "evaluation" else "batch"
    return (
        f"after epoch {epoch}, on {record.get('num_images')} {record.get('split')} images "
        f"with {statistics} statistics of batch norm"
    )
