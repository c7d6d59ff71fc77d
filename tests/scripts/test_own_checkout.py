"""Every command runs the code of its own checkout, even if another package named sam is installed."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH_LINE = (
    "sys.path.insert(0, str({path}(__file__).resolve().parents[{levels}]))"
    "  # this checkout, whatever is installed\n"
)
# Users copy examples and run them after `pip install .`; two files are started by `python -m`.
OTHERS = {
    "hessian_cost.py",
    "whole_runs.py",
    *(path.name for path in (ROOT / "scripts" / "examples").iterdir()),
}
COMMANDS = [
    path
    for path in sorted((ROOT / "scripts").rglob("*.py"))
    if "__main__" in path.read_text() and path.name not in OTHERS
]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_command_puts_its_checkout_first_on_the_path_before_it_imports_from_it(path):
    text, levels = path.read_text(), len(path.relative_to(ROOT).parts) - 1
    lines = [PATH_LINE.format(path=name, levels=levels) for name in ("Path", "pathlib.Path")]
    (before,) = [text.partition(line)[0] for line in lines if f"\n{line}" in text]
    assert "\nfrom sam" not in before and "\nfrom scripts" not in before


def test_no_script_reaches_for_the_package_in_another_way():
    for path in (ROOT / "scripts").rglob("*.py"):
        assert path.read_text().count("sys.path") == (path in COMMANDS), path
        assert "E402" not in path.read_text(), path


def test_command_runs_its_own_checkout_although_another_is_installed(tmp_path):
    other = tmp_path / "sam"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the code of another checkout')")
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "compare.py"), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
