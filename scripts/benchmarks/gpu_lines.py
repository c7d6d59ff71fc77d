"""The lines that scripts/gpu_check.sh prints for the rows of each part. Imports no torch."""

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
# In the order of the columns of the speed table.
SPEED_COLUMNS = ("plain sgd", "davda54 sam", "sgd eager", "sgd captured", "sam eager", "sam captured")
MOST_FAILURES = 6  # lines on failures in a part; the JSON file has all


def environment_lines(rows: Sequence[Row]) -> list[str]:
    """Return the machine in one line, and what to think of before reading the times."""
    row = dict(rows[0])
    missing = [name for name, value in row.items() if value is False]
    lines = [", ".join(f"{key} {value}" for key, value in row.items() if not isinstance(value, bool))]
    if missing:
        lines.append(f"not installed: {', '.join(missing)}")
    if row.get("used_by_others_gib", 0) > 2:
        lines.append("another process uses this GPU: do not trust the times below")
    return lines


def test_lines(rows: Sequence[Row]) -> list[str]:
    """Return the number of tests by outcome, and the tests that failed."""
    outcomes = [row["outcome"] for row in rows]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in ("passed", "failed", "skipped"))
    failed = [f"{row['test']}: {row['reason']}" for row in rows if row["outcome"] == "failed"]
    return [counts, *failed[:MOST_FAILURES]]


def speed_lines(rows: Sequence[Row]) -> list[str]:
    """Return the speed table: ms per update, and the best SAM next to davda54's and next to SGD."""
    titles = ("plain", "davda54", "sgd", "captured", "sam", "captured")
    heads = "".join(f"{title:>9}" for title in titles)
    lines = [f"{'ms per update':<27}{heads}  images/s {'x davda54':>18} x sgd    MiB busy"]
    failures = []
    for row in rows:
        compiled = ", compiled" if row["compile"] else ""
        label = f"{row['model']} m={row['m']} {row['precision']}{'+compile' if compiled else ''}"
        names = [name + compiled if name[:3] in ("sgd", "sam") else name for name in SPEED_COLUMNS]
        times = "".join(f"{row['ms'].get(name, '-'):>9}" for name in names)
        best = next((name for name in reversed(names) if name in row["ms"] and name.startswith("sam")), None)
        lines.append(f"{label:<27}{times}{_best(row, best)}")
        failures += [f"{label}, {name}: {reason}" for name, reason in row["failed"].items()]
    return lines + failures[:MOST_FAILURES]


def _best(row: Row, name: str | None) -> str:
    """Return the columns of the fastest kind of SAM."""
    if name is None:
        return ""
    ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*row["speed_over_reference"].get(name, [float("nan")] * 3))
    over_sgd = row["sam_over_sgd"].get(name, [float("nan")])[0]
    memory, busy = row["peak_memory_mib"][name], row["busy"].get(name, "-")
    return f"{row['images_per_second'][name]:>10} {ratio:>18} {over_sgd:>5.2f} {memory:>6.0f} {busy:>4}"


def determinism_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per comparison."""
    lines = []
    for row in rows:
        if "equal" in row:
            equal = "equal bits" if row["equal"] else f"BITS DIFFER, weights by {row['distance']}"
            lines.append(f"{row['what']}: {equal}")
        else:
            lines.append(
                f"{row['what']}: after {row['epochs']} epochs, the weights of two equal runs differ by "
                f"{row['distance']} of their length, and their test errors are {row['test_errors_pct']} %"
            )
    return lines


def auto_augment_lines(rows: Sequence[Row]) -> list[str]:
    """Return the speeds in one line."""
    return [
        "images per second: " + ", ".join(f"{r['augmentation']} {r['images_per_second']:,}" for r in rows)
    ]


def epoch_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per run."""
    lines = []
    for row in rows:
        label = f"{row['model']} m={row['m']}"
        if "plain" in row:
            lines.append(f"{label}, davda54 in its usual loop with a DataLoader: {row['plain']:,} images/s")
        else:
            speed = row.get("images_per_second")
            lines.append(f"{label}: {row['failed'] if speed is None else f'{speed:,} images/s'}")
    return lines


def hessian_lines(rows: Sequence[Row]) -> list[str]:
    """Return the times in one line."""
    return [f"{rows[0]['model']}, ms: " + ", ".join(f"{row['variant']} {row['ms']}" for row in rows)]


def side_by_side_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per number of processes."""
    return [
        f"{row['processes']} x {row['model']}: {sum(row['images_per_second']):,} images/s in all, "
        f"{min(row['images_per_second']):,} to {max(row['images_per_second']):,} each"
        for row in rows
    ]


def run_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per run of train.py."""
    return [
        f"{row['run']} on {row['device']}: {row['status']}, test error {row['test_error_pct']:.2f} %, "
        f"{row['seconds']:.0f} s"
        for row in rows
    ]


LINES: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "environment": environment_lines,
    "tests": test_lines,
    "speed": speed_lines,
    "determinism": determinism_lines,
    "autoaugment": auto_augment_lines,
    "epochs": epoch_lines,
    "hessian": hessian_lines,
    "side_by_side": side_by_side_lines,
    "kill": run_lines,
    "quickstart": run_lines,
}
