"""The tests that docs/trust.md names are there."""

import pathlib
import re

TESTS = pathlib.Path(__file__).resolve().parent


def test_every_claim_names_a_test_that_is_there():
    text = (TESTS.parent / "docs" / "trust.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| claim")]
    assert len(named) >= len(rows) - 1 > 30, "one row names the test of the row before"
    for file, name in named:
        assert f"\ndef {name}(" in (TESTS / file).read_text(), f"{file}::{name}"
