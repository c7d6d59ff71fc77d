"""A comparison as data for JSON: all that its tables have, unrounded. docs/compare.md shows the layout."""

import math
from collections.abc import Mapping
from typing import Any

from sam.paper.cells import Departure, Match, Printed
from sam.record.reader import Run
from sam.report.comparison import Comparison
from sam.report.equal_compute import ComputeFamily, ComputeRow
from sam.report.groups import Group
from sam.report.interval import Estimate
from sam.report.paired import Difference
from sam.report.paper_rows import PaperRow
from sam.report.rho_sweeps import RhoRow, RhoSweep
from sam.report.table import SettingRow, SettingTable

# Raise it if a key changes its meaning or is removed; a new key does not raise it.
LAYOUT = 1


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as dictionaries, lists, texts and finite numbers.

    Errors are in percent, differences in percentage points, times in seconds. null stands for a number that
    no run has. Infinite values of keys are the text "inf".

    Args:
        comparison: The comparison.
    """
    return {
        "layout": LAYOUT,
        "settings": [_setting(table) for table in comparison.setting_tables],
        "paper": [_paper_row(row) for row in comparison.paper_rows],
        "equal_compute": [_family(family) for family in comparison.compute_families],
        "rho_sweeps": [_sweep(sweep) for sweep in comparison.rho_sweeps],
        "unfinished": [_unfinished(run) for run in comparison.interrupted],
        "left_out": list(comparison.warnings),
    }


def _setting(table: SettingTable) -> dict[str, Any]:
    return {
        "title": table.title,
        "split": table.setting.split,
        "clean_labels": table.setting.has_clean_labels,
        "keys": _values(table.setting.fields),
        "rows": [_setting_row(row) for row in table.rows],
    }


def _setting_row(row: SettingRow) -> dict[str, Any]:
    return {
        **_condition(row.group),
        "error_pct": _estimate(row.test_error_pct),
        "top5_error_pct": _estimate(row.test_top5_error_pct),
        "train_error_pct": _estimate(row.train_error_pct),
        "train_clean_error_pct": _estimate(row.train_clean_error_pct),
        **_difference(row.difference),
        "seconds": _estimate(row.seconds),
        "paper": None if row.paper is None else _match(row.paper),
        "runs": [_run(run) for run in row.group.complete],
    }


def _paper_row(row: PaperRow) -> dict[str, Any]:
    return {
        **_match(Match(row.cell, row.departures)),
        "condition": _condition(row.group),
        "error_pct": _estimate(row.top1),
        "top5_error_pct": _estimate(row.top5),
        "difference_to_paper_points": row.difference_points,
        "verdict": row.verdict,
        "alternative": row.alternative or None,
        "alternatives_not_run": list(row.not_run),
        "doubt": row.cell.doubt or None,
    }


def _family(family: ComputeFamily) -> dict[str, Any]:
    rows = [_compute_row(row) for row in family.rows]
    return {"title": family.title, "split": family.split, "rows": rows}


def _compute_row(row: ComputeRow) -> dict[str, Any]:
    return {
        **_condition(row.group),
        "epochs": row.epochs,
        "passes_per_image": row.passes_per_image,
        "error_pct": _estimate(row.test_error_pct),
        "seconds": _estimate(row.seconds),
        "sgd_at_equal_passes": None if row.partner is None else _condition(row.partner),
        "sgd_epochs": None if row.partner is None else row.partner.config["epochs"],
        "sgd_epochs_not_run": row.missing_epochs,
        **_difference(row.difference),
    }


def _sweep(sweep: RhoSweep) -> dict[str, Any]:
    return {
        "title": sweep.title,
        "method": sweep.method,
        "validation": sweep.validation,
        "selected_rho": sweep.selected.rho,
        "selected_on": sweep.split,
        "rows": [_rho_row(row) for row in sweep.rows],
    }


def _rho_row(row: RhoRow) -> dict[str, Any]:
    return {
        "rho": row.rho,
        "validation": None if row.validation is None else _condition(row.validation),
        "validation_error_pct": _estimate(row.validation_error_pct),
        "test": None if row.test is None else _condition(row.test),
        "test_error_pct": _estimate(row.test_error_pct),
    }


def _condition(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "method": group.method,
        "rho": group.rho,
        "identity": group.identity,
        "n": len(group.complete),
        "diverged": group.num_diverged,
    }


def _run(run: Run) -> dict[str, Any]:
    assert run.result is not None, "a complete run has a result"
    return {
        "directory": str(run.directory),
        "seed": run.result["seed"],
        "error_pct": run.result["test_error_pct"],
    }


def _unfinished(run: Run) -> dict[str, Any]:
    return {"directory": str(run.directory), "epoch": run.last_epoch, "epochs": run.config["epochs"]}


def _match(match: Match) -> dict[str, Any]:
    return {
        "cell": match.cell.name,
        "table": match.cell.table,
        "printed_error_pct": _printed(match.cell.top1),
        "printed_top5_error_pct": None if match.cell.top5 is None else _printed(match.cell.top5),
        "departures": [_departure(departure) for departure in match.departures],
    }


def _printed(printed: Printed) -> dict[str, Any]:
    return {"mean": printed.error_pct, "half_width": printed.ci95_points, "text": printed.text}


def _departure(departure: Departure) -> dict[str, Any]:
    allowed = [_value(value) for value in departure.allowed]
    return {"key": departure.key, "value": _value(departure.value), "allowed": allowed}


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {"mean": estimate.mean, "half_width": estimate.half_width, "n": estimate.num_values}


def _difference(difference: Difference | None) -> dict[str, Any]:
    if difference is None:
        return {"difference_to_sgd_points": None, "seeds_without_partner": None}
    points = _estimate(difference.estimate)
    if points is not None:
        points |= {
            "p_paired_t": difference.paired_t_p,
            "p_sign_flip": difference.sign_flip_p,
            "p_welch": difference.welch_p,
        }
    lone = {"condition": list(difference.only_condition), "sgd": list(difference.only_baseline)}
    return {"difference_to_sgd_points": points, "seeds_without_partner": lone}


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> Any:
    """Return the value of a key as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | list | None) else str(value)
