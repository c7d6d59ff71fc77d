"""What the runs of a comparison say about SAM and SGD, in one sentence for each setting."""

from sam.report.comparison import Comparison
from sam.report.equal_compute import ComputeRow
from sam.report.interval import Estimate
from sam.report.markup import format_estimate
from sam.report.table import SettingRow, SettingTable

# The first screen has no room for more; the tables have all settings.
MAX_SETTINGS = 8


def in_short(comparison: Comparison) -> list[str]:
    """Return one sentence for each setting with SGD and SAM, for test errors only.

    If a setting has several conditions of SAM, the sentence is about the one with the most pairs.

    Args:
        comparison: The runs and their comparison.
    """
    partners = {row.group.key: row for family in comparison.compute_families for row in family.rows}
    told = [
        _sentence(table, row, partners.get(row.group.key))
        for table in comparison.setting_tables
        if table.setting.split == "test" and (row := _most_pairs(table)) is not None
    ]
    more = len(told) - MAX_SETTINGS
    return [*told[:MAX_SETTINGS], *([f"{more} more settings: see the tables below."] if more > 0 else [])]


def _most_pairs(table: SettingTable) -> SettingRow | None:
    compared = [row for row in table.rows if row.group.is_sam and _difference(row) is not None]
    return max(compared, key=_num_pairs, default=None)


def _num_pairs(row: SettingRow) -> int:
    found = _difference(row)
    return 0 if found is None else found.num_values


def _difference(row: SettingRow | ComputeRow) -> Estimate | None:
    return None if row.difference is None else row.difference.estimate


def _sentence(table: SettingTable, row: SettingRow, at_equal_passes: ComputeRow | None) -> str:
    difference = _difference(row)
    assert difference is not None, "only compared rows have a sentence"
    labels = "correct labels" if table.setting.has_clean_labels else "wrong labels"
    text = f"{table.title} ({labels}): {row.group.label} {_compared(difference, table.setting.base)}."
    if at_equal_passes is None or at_equal_passes.partner is None:
        return text
    fair = _difference(at_equal_passes)
    if fair is None:
        return text
    base = f"{table.setting.base} with {at_equal_passes.partner.config['epochs']} epochs"
    return f"{text} At equal passes, it {_compared(fair, base)}."


def _compared(difference: Estimate, base: str) -> str:
    assert difference.half_width is not None, "a paired difference has at least two seeds"
    points = f"{format_estimate(difference, difference.num_values, '+')} points, n = {difference.num_values}"
    if abs(difference.mean) <= difference.half_width:
        return f"is neither clearly better nor clearly worse than {base}: {points}"
    return f"has a {'lower' if difference.mean < 0 else 'higher'} error than {base}: {points}"
