"""A file of test conditions that replaces the paper's."""

import csv

import pytest

from sam.paper.cells import COLUMNS
from scripts import reproduce
from tests.tiny import TINY

# A very short run, under the name of a dataset whose size is known.
SMALL = " ".join([*TINY, "dataset.name=cifar10", "m=8"])


def cell(name, more="", **fields):
    """Return a row of the file."""
    method = "sgd" if "sgd" in name else "sam"
    values = (
        f"dataset.name=cifar10 model.name=resnet8 augmentation.name=none optimizer.name={method} epochs=1"
    )
    row = dict.fromkeys(COLUMNS, "") | {"cell": name, "table": name[len("table")], "assumed": values}
    row |= {"overrides": f"{SMALL} optimizer={method} {more}", "seeds": "2", "top1_error_pct": "3.5"}
    return row | fields


@pytest.fixture
def use_cells(monkeypatch, tmp_path):
    """Replace the paper's conditions by a file of test conditions."""
    monkeypatch.chdir(tmp_path)

    def use(*rows):
        with open(tmp_path / "cells.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        monkeypatch.setattr(reproduce, "CELLS", tmp_path / "cells.csv")

    return use
