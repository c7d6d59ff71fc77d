"""Run directories from elsewhere that mean harm, given to all that makes tables, figures and reports of runs.

A run that cannot be read is left out with a warning; nothing in it is run, no file makes the reader wait or
fill its memory, and what a run says of itself is text on the page of the report, never markup.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sam.record.reader import find_runs
from tests.faults.hostile import ALIAS_BOMB
from tests.record.run_directories import falling_errors, make_config, write_run
from tests.scripts.test_report import _browse, _report, needs_browser

ROOT = Path(__file__).resolve().parents[2]
RAN = "document.title='RAN'"
MARKUP = f'</td></script><script>{RAN}</script><img src=x onerror={RAN}>"><svg onload={RAN}>'


def _tagged(run: Path) -> None:
    text = f"dataset: !!python/object/apply:os.mkdir ['{run.parent.parent / 'ran'}']\n"
    (run / "config.yaml").write_text(text)


def _pipe(name: str) -> None:
    os.remove(name)
    os.mkfifo(name)


def _endless(name: str) -> None:
    os.remove(name)
    os.symlink("/dev/zero", name)


def _large(name: str) -> None:
    """Of a gigabyte in one line, of which the disk holds nothing."""
    with open(name, "wb") as file:
        file.truncate(2**30)


def _config(**changes: object) -> str:
    return json.dumps(make_config(**changes))


FAULTS = {
    "yaml tag": (_tagged, "could not determine a constructor"),
    "yaml aliases": (lambda run: (run / "config.yaml").write_text(ALIAS_BOMB), "it has an alias"),
    "yaml depth": (lambda run: (run / "config.yaml").write_text("[" * 60000), "config.yaml cannot be read"),
    "yaml bytes": (lambda run: (run / "config.yaml").write_bytes(b"a: \xff"), "config.yaml cannot be read"),
    "yaml size": (lambda run: _large(run / "config.yaml"), "it is longer than 65536 bytes"),
    "yaml epochs": (
        lambda run: (run / "config.yaml").write_text(_config(epochs=10**300)),
        "no valid number of epochs",
    ),
    "json depth": (lambda run: (run / "result.json").write_text("[" * 10**6), "result.json cannot be read"),
    "json digits": (lambda run: (run / "result.json").write_text("1" * 10**6), "result.json cannot be read"),
    "json bytes": (lambda run: (run / "result.json").write_bytes(b'"\xff"'), "result.json cannot be read"),
    "json size": (lambda run: _large(run / "result.json"), "it is longer than 16777216 bytes"),
    "csv size": (lambda run: _large(run / "metrics.csv"), "it is longer than 16777216 bytes"),
    "csv rows": (
        lambda run: (run / "metrics.csv").write_text("epoch\n" + "1\n" * 100_001),
        "it has more than 100000 rows",
    ),
    "csv epoch": (lambda run: (run / "metrics.csv").write_text("epoch\n1e300\n"), "a row has no epoch"),
    **{
        f"{name} {what}": (lambda run, name=name, make=make: make(run / name), "it is not a regular file")
        for name in ("config.yaml", "result.json", "metrics.csv")
        for what, make in (("pipe", _pipe), ("endless", _endless))
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run for every fault, and with two sound ones."""
    root = tmp_path_factory.mktemp("runs")
    for number, (name, (make, _)) in enumerate(FAULTS.items()):
        # In an ended run, a wrong checksum would be the reported fault.
        result = {} if "json" in name else {"status": "interrupted"}
        make(write_run(root, result, falling_errors(3, 4.0), seed=number))
    for name in ("sgd", "sam"):
        write_run(root, None, falling_errors(3, 2.0), seed=99, optimizer__name=name)
    return root


@pytest.mark.timeout(30)
def test_every_fault_is_told_of_its_run_and_the_others_are_read(runs: Path) -> None:
    found, problems = find_runs([runs])
    assert [run.config["seed"] for run in found] == [99, 99]
    told = {int(re.findall(r"seed(\d+)-", problem.path.name)[0]): problem.reason for problem in problems}
    for number, (name, (_, message)) in enumerate(FAULTS.items()):
        assert message in told[number], name


SCRIPTS = {
    "compare.py": ["--out", "{out}"],
    "report.py": ["--out", "{out}/report.html"],
    "figure.py": ["curves", "--out", "{out}/curves.png"],
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_leave_hostile_runs_out_with_a_warning(runs: Path, tmp_path: Path, script: str) -> None:
    first, *others = (text.format(out=tmp_path) for text in SCRIPTS[script])
    arguments = [first, str(runs), *others] if script == "figure.py" else [str(runs), first, *others]
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.splitlines()
    assert sum(line.startswith("warning: ") for line in warnings) == len(warnings) >= len(FAULTS)
    assert not (runs / "ran").exists()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of runs that are called, and say of themselves, what would be markup."""
    root = tmp_path_factory.mktemp("named") / f"<img src=x onerror={RAN}>"
    texts = {"message": MARKUP, "device": MARKUP, "commit": MARKUP, "versions": {MARKUP: MARKUP}}
    names = {"dataset__label_file": MARKUP, "dataset__root": MARKUP, "model__architecture": MARKUP}
    for seed in (0, 1):
        for name in ("sgd", "sam"):
            write_run(root, texts, falling_errors(3, 2.0), seed=seed, optimizer__name=name, **names)
    write_run(root, {**texts, "status": "diverged"}, falling_errors(3, 2.0), dataset__name=MARKUP)
    write_run(root, {"status": "interrupted"}, falling_errors(2, 2.0), model__name=MARKUP, seed=5)
    (write_run(root, seed=9) / "result.json").write_text(json.dumps({"status": MARKUP}))
    path = root.parent / "report.html"
    assert _report(root.parent, root, "--out", path).returncode == 0
    return path


@pytest.mark.slow
def test_what_a_run_says_of_itself_is_no_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;") > 20
    assert "<img src=x" not in text
    assert f"<script>{RAN}" not in text
    assert "<svg onload" not in text
    for tag in re.findall(r"<[a-zA-Z][^>]*>", text):
        assert not re.search(r"\son\w+=(?!&quot;)", re.sub(r'"[^"]*"', "", tag)), tag


@pytest.mark.slow
@needs_browser
def test_no_script_of_a_run_is_run_even_without_the_policy_of_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    policy = '<meta http-equiv="Content-Security-Policy"[^>]*>'
    assert re.search(policy, text)
    bare = page.with_name("bare.html")
    bare.write_text(re.sub(policy, "", text), encoding="utf-8")
    done = _browse(bare, "--dump-dom")
    assert "<title>RAN</title>" not in done.stdout
    assert "<title>" in done.stdout
    # It would have been, had it been markup.
    bare.write_text(re.sub(policy, "", text).replace("</body>", f"{MARKUP}</body>"), encoding="utf-8")
    assert "<title>RAN</title>" in _browse(bare, "--dump-dom").stdout
