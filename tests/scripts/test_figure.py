"""Tests of scripts/figure.py."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sam.paper.figure_plan import PRESETS, Preset, SweepRuns
from sam.record.identity import path_of
from tests.paper.test_figure_runs import write_ended
from tests.record.run_directories import falling_errors, write_run
from tests.tiny import TINY

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "figure.py"
SPEC = importlib.util.spec_from_file_location("figure", SCRIPT)
figure = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figure)
CURVES = "python train.py -m experiment=small/figures optimizer=sgd,sam seed=0,1,2"


@pytest.fixture
def run(run_main):
    """Return a function that runs the script in this process."""
    return lambda *arguments: run_main(figure.main, str(SCRIPT), *map(str, arguments))


@pytest.fixture
def small(monkeypatch):
    """Reduce the small preset of curves to two runs, so that few configs are composed."""
    preset = Preset((SweepRuns(("experiment=small/figures", "optimizer=sgd,sam"), (0,)),))
    monkeypatch.setitem(
        figure.FIGURES,
        "curves",
        figure.FIGURES["curves"]._replace(presets=dict.fromkeys(PRESETS, preset)),
    )
    return preset.parts[0].configs()


def write_planned(outputs: Path, config) -> Path:
    """Write a run of a preset with an epoch in its metrics."""
    directory = write_ended(outputs, config)
    (directory / "metrics.csv").write_text("epoch,test_error_pct,train_error_pct\n1,30,20\n")
    return directory


def test_figure_batch_writes_a_readable_png_in_the_current_folder(run, tmp_path: Path) -> None:
    code, out, error = run("batch", *TINY, "augmentation=autoaugment_cutout")
    assert (code, out, error) == (0, "wrote batch-synthetic-autoaugment_cutout.png\n", "")
    [path] = tmp_path.iterdir()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        # 16 images in 8 columns, each 1.4 inches wide, at 150 dots per inch.
        assert picture.width == 1680
        # A picture with only text has at most 256 greys.
        assert len(picture.convert("RGB").getcolors(2**24)) > 256


def test_figure_batch_with_out_writes_there_whatever_its_name(run, tmp_path: Path) -> None:
    code, out, _ = run("batch", *TINY, "augmentation=mixup", "--out", tmp_path / "sheet.jpg")
    assert (code, out) == (0, f"wrote {tmp_path / 'sheet.jpg'}\n")
    assert (tmp_path / "sheet.jpg").read_bytes().startswith(b"\x89PNG")


def test_figure_batch_repeats_itself(run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run("batch", *TINY, "augmentation=autoaugment", "--out", name)[0] == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["augmentation.flop=true"], "error: augmentation.flop: there is no such key; did you mean"),
        (["augmentation=cutoff"], "error: augmentation=cutoff: there is no such choice; allowed is one of"),
        (["augmentation.crop_padding=-1"], "error: augmentation.crop_padding=-1: allowed is a number >= 0"),
        (
            ["--out", "nowhere/sheet.png"],
            "error: --out=nowhere/sheet.png: No such file or directory; name a file",
        ),
    ],
)
def test_figure_of_a_mistake_exits_with_2(run, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, out, error = run("batch", *TINY, *arguments)
    assert (code, out) == (2, "")
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figure_of_all_ended_runs_has_the_format_of_its_ending(
    run, tmp_path: Path, ending: str, start: bytes
) -> None:
    for method in ("sgd", "sam"):
        write_run(tmp_path / "outputs", metrics=falling_errors(3, 3.0), optimizer__name=method)
    code, out, error = run("curves", "--out", f"picture.{ending}")
    assert (code, out, error) == (0, f"wrote picture.{ending}\n", "")
    assert (tmp_path / f"picture.{ending}").read_bytes().startswith(start)


def test_figure_takes_folders_and_seeds(run, tmp_path: Path, monkeypatch) -> None:
    for seed in (0, 1, 2):
        metrics = [{"epoch": 1, "test_error_pct": 10.0 + seed}]
        write_run(tmp_path / "here", metrics=metrics, seed=seed)
        write_run(tmp_path / "there", metrics=metrics, seed=seed, optimizer__name="sam")
    drawn = []
    monkeypatch.setattr("sam.figures.catalogue.draw", lambda name, groups, *_: drawn.append(groups) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("curves", "here", "there", "--seeds", "0,2")
    (groups,) = drawn
    assert [(group.label, sorted(group.values("test_error_pct"))) for group in groups] == [
        ("SGD", [0, 2]),
        ("SAM rho=0.05", [0, 2]),
    ]


def test_figure_without_runs_names_the_small_presets_commands(run, tmp_path: Path) -> None:
    code, out, error = run("curves")
    assert (code, out) == (2, "")
    assert error.splitlines() == [
        "error: curves: no complete run has epochs in its metrics.csv",
        "commands for what the preset small lacks:",
        f"  {CURVES}",
    ]
    assert not list(tmp_path.iterdir())


def test_figure_of_a_preset_says_what_is_missing_and_draws_the_rest(run, small, tmp_path: Path) -> None:
    sgd, sam = small
    write_planned(tmp_path / "outputs", sgd)
    code, out, error = run("curves", "--preset", "small")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "1 of 2 runs have ended",
        f"  missing: {path_of(sam)}",
        "commands for what the preset small lacks:",
        "  python train.py -m experiment=small/figures optimizer=sgd,sam seed=0",
        "wrote curves.png",
    ]
    write_planned(tmp_path / "outputs", sam)
    assert run("curves", "--preset", "small")[:2] == (0, "wrote curves.png\n")


def test_figure_of_a_preset_draws_no_other_run(run, small, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", metrics=falling_errors(3, 3.0))
    code, out, error = run("curves", "runs", "--preset", "paper")
    assert (code, out) == (2, "")
    assert error.splitlines()[1:] == [
        "commands for what the preset paper lacks:",
        "  python train.py -m experiment=small/figures optimizer=sgd,sam seed=0 outputs=runs",
        "much cheaper: python scripts/figure.py curves --preset small",
    ]


def test_figure_list_names_every_figure_with_the_commands_of_all_presets(run) -> None:
    code, out, error = run("--list")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["batch", *figure.FIGURES]
    at = lines.index("curves")
    assert lines[at + 2 : at + 4] == ["  small: 6 runs", f"    {CURVES}"]
    assert lines[at + 4 : at + 7 : 2] == ["  one_gpu: 6 runs", "  paper: 10 runs"]
    assert all("python " in line for line in lines if line.startswith("    "))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a figure: batch, fig1, "),
        (["fig2"], "argument NAME: invalid choice: 'fig2'"),
        (["batch", "--preset", "small"], "batch needs a config and no runs"),
        (
            ["curves", "--seeds", "0,x"],
            "'0,x': allowed are whole numbers >= 0, such as 0,1,2",
        ),
        (["curves", "nowhere"], "error: no folder nowhere; name the folders that hold your runs"),
    ],
)
def test_figure_mistakes_on_the_command_line_exit_with_2(run, arguments: list[str], message: str) -> None:
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert message in error


@pytest.mark.slow
def test_figure_needs_no_torch_but_for_batch(tmp_path: Path) -> None:
    program = f"""
import runpy, sys
sys.argv = ['figure.py', 'fig1']
try:
    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')
finally:
    print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *told, last, torch_and_pyplot = done.stdout.splitlines()
    assert (last, torch_and_pyplot) == ("wrote fig1.png", "False False")
    assert told[-1].startswith("  python train.py -m experiment=small/table1,small/table4,small/table5 ")
