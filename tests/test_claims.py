"""The tests that docs/trust.md names are there, and those that need -m slow are marked on the page."""

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


def test_claims_of_slow_tests_say_so():
    text = (TESTS.parent / "docs" / "trust.md").read_text()
    for file, name, mark in re.findall(r"`([\w/]+\.py)::(\w+)`( \(slow\))?", text):
        code = (TESTS / file).read_text()
        module = re.search(r"^pytestmark = (.*(?:\n    .*)*)", code, re.MULTILINE)
        own = re.search(rf"^@pytest\.mark\.slow\n(?:(?!def ).*\n)*def {name}\(", code, re.MULTILINE)
        is_slow = own is not None or (module is not None and "pytest.mark.slow" in module[1])
        assert is_slow == bool(mark), f"{file}::{name}"
