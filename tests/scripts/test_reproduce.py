"""Tests of scripts/reproduce.py; they start processes only to test processes."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import train
from sam.config.compose import composed
from sam.config.mistakes import report_mistakes
from sam.paper.cells import read_cells
from sam.paper.runs import runs_of
from sam.record.directory import read_result
from sam.record.identity import path_of
from sam.run import rehearsal as rehearse
from scripts import reproduce
from tests.paper.made_up_cells import cell

CELLS = read_cells(reproduce.CELLS)


@pytest.fixture
def started(monkeypatch):
    """Replace new processes by training in this process; return the list of started commands."""
    commands = []

    def run(overrides):
        commands.append(tuple(overrides))
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
        try:
            report_mistakes(train.main)
        except SystemExit as ending:
            return ending.code
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        return 0

    monkeypatch.setattr(reproduce, "_run", run)
    return commands


def listed(out):
    """Return the commands that --list printed, by the name of the condition."""
    found = {}
    for line in out.splitlines():
        if line.startswith("table"):
            name = line
        if line.startswith("  python train.py -m "):
            found.setdefault(name, []).append(shlex.split(line)[3:])
    return found


def jobs(words, seed):
    """Return the config of the first job of a sweep with that seed."""
    firsts = [word.split(",")[0] for word in words if not word.startswith("seed=")]
    return composed([*firsts, f"seed={seed}"])


@pytest.mark.slow
def test_list_of_all_names_150_conditions_with_their_printed_numbers(capsys):
    assert reproduce.main(["all", "--list", "--seeds", "4"]) == 0
    out = capsys.readouterr().out
    commands = listed(out)
    wanted = [each for each in CELLS if each.table in "12345"]
    assert list(commands) == [each.name for each in wanted]
    assert len(wanted) == 150
    assert out.splitlines()[-1].startswith("150 conditions, ")
    for each in wanted:
        block = out[out.index(f"{each.name}\n") :].split("\ntable")[0]
        assert f"  printed: {each.top1.text} %" in block
        assert not each.top5 or f"top-5 {each.top5.text} %" in block
        assert not each.doubt or "(doubtful: " in block
        assert all(words[-1] == "seed=0,1,2,3" for words in commands[each.name])
    # One of each table; that takes a tenth of a second.
    for each in {each.table: each for each in wanted}.values():
        assert jobs(commands[each.name][0], 0).model.name == each.values["model.name"]


def test_list_loads_no_torch():
    program = (
        "import sys; from scripts import reproduce; reproduce.main(['table1', '--list']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=reproduce.ROOT, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


def test_listed_sweeps_are_the_planned_runs(capsys):
    names = ["table1/cifar10/wrn_28_10_200/basic/sgd", "table4/noise40/resnet32_wide/basic/bootstrap_sam"]
    more = ["outputs='a b\\'s'"]
    plans = {each.name: runs_of(each, [3], more) for each in CELLS if each.name in names}
    chosen = ["table1", "table4", "--dataset", "cifar10", "--model", "wrn_28_10,resnet32_wide"]
    chosen += ["--augmentation", "basic", "--method", "sgd,bootstrap_sam"]
    assert reproduce.main([*chosen, *more, "--list", "--seeds", "4"]) == 0
    commands = listed(capsys.readouterr().out)
    (sweep,) = commands[names[0]]
    assert "epochs=200,400" in sweep
    assert path_of(jobs(sweep, 3)) == plans[names[0]][0].directory
    for words, run in zip(commands[names[1]], plans[names[1]], strict=True):
        config = jobs(words, 3)
        assert config.dataset == run.config.dataset
        assert path_of(config) == run.directory


def test_filters_choose_and_take_several_values(capsys):
    arguments = ["table1", "--dataset", "cifar100", "--model", "wrn_28_10,pyramidnet_272", "--method", "sam"]
    assert reproduce.main([*arguments, "--augmentation", "basic,cutout", "--epochs", "200", "--list"]) == 0
    out = capsys.readouterr().out
    assert list(listed(out)) == [f"table1/cifar100/wrn_28_10_200/{name}/sam" for name in ("basic", "cutout")]
    assert out.splitlines()[-1].startswith("2 conditions, 10 runs (")
    assert reproduce.main(["table4", "--noise", "40,80", "--method", "sgd,sam", "--list"]) == 0
    assert [name.split("/")[1] for name in listed(capsys.readouterr().out)] == ["noise40"] * 2 + [
        "noise80"
    ] * 2


def test_tiers_are_listed_like_the_tables_of_the_paper(capsys):
    assert reproduce.main(["one_gpu/table1", "small/table4", "--noise", "60", "m=32", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [f"small/table4/noise60/{method}" for method in ("sgd", "mixup", "sam")]
    assert [line for line in lines if line.startswith("small/")] == names
    assert lines[-2] == (
        "  python train.py -m experiment=small/table4 dataset.label_noise=0.6 optimizer=sam m=32 seed=0,1,2"
    )
    assert lines[-1].startswith("3 conditions, 9 runs")


def test_one_command_drives_a_tier(started, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["dataset.reader=synthetic", "dataset.num_train=16", "dataset.num_test=8", "dataset.image_size=8"]
    words += ["dataset.num_classes=4", "model=resnet8", "model.width=2", "batch_size=8", "m=8", "epochs=1"]
    assert reproduce.main(["small/table5", "--method", "sam", "--seeds", "1", *words]) == 0
    assert started == [("experiment=small/table5", "optimizer=sam", *words, "seed=0")]
    assert "\n1 run: 1 complete, 0 diverged, 0 failed\ncompare: python scripts/compare.py outputs\n" in (
        capsys.readouterr().out
    )
    assert reproduce.main(["small/table5", "--method", "sam", "--seeds", "1", *words]) == 0
    assert len(started) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table6"], "table6: there is no such table; allowed is table1, table2, "),
        (["optimizer.lr=1"], "name a table: table1, table2, "),
        (
            ["table1", "--dataset", "cifar10,svhn"],
            "--dataset svhn: none of the conditions chosen so far has it; allowed is cifar10, cifar100; "
            "svhn is in table5\n",
        ),
        (
            ["table1", "--noise", "40"],
            "--noise 40: none of the conditions chosen so far has it; leave --noise out",
        ),
        (
            ["table1", "--epochs", "1800", "--model", "resnet50"],
            "--model resnet50: none of the conditions chosen so far has it; allowed is wrn_28_10, ",
        ),
        (["table1", "optimizer.rho=much"], "optimizer.rho=much: allowed is a number\n"),
        (["table1", "optimiser.rho=1"], "optimiser.rho: there is no such key; did you mean optimizer.rho?\n"),
        (["all", "dataset=svhn"], "dataset=svhn: this experiment is for cifar10 and cifar100; "),
        (["table1", "m=7"], "m=7 does not divide batch_size=256; choose a divisor or m=null\n"),
        (["table1", "seed=3"], "seed=3: each condition has its own seeds; set how many with --seeds N\n"),
    ],
)
def test_mistakes_are_reported_once_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(rehearse.Rehearsal, "run_trial", None)
    monkeypatch.setattr(reproduce, "_run", None)
    assert reproduce.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {message}")
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize("arguments", [[], ["table1", "--seeds", "0"], ["table1", "--list", "--smoke"]])
def test_mistakes_in_options_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ending:
        reproduce.main(arguments)
    assert ending.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.slow
def test_training_goes_on_after_a_failed_run_and_takes_up_what_is_missing(use_cells, started, capsys):
    use_cells(
        cell("table1/tiny/sgd", alternatives="epochs=1 | epochs=2"),
        cell("table4/noise40/tiny/bootstrap_sam", labels_from="dataset.label_noise=0.4"),
    )
    first, second = read_cells(reproduce.CELLS)
    planned = [*runs_of(first, [0, 1]), *runs_of(second, [0, 1])]
    blocked = planned[1].directory
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file where the run directory should be
    assert reproduce.main(["table1", "table4"]) == 1
    assert started == [run.overrides for run in planned]
    assert [bool(read_result(run.directory)) for run in planned] == [True, False, *[True] * 6]
    out = capsys.readouterr().out
    assert f"\n[8 of 8] {planned[7].directory}\n" in out
    told = shlex.join(["python", "train.py", *planned[1].overrides])
    assert f"\n8 runs: 7 complete, 0 diverged, 1 failed\n  failed; run it alone: {told}\n" in out
    assert out.endswith("\ncompare: python scripts/compare.py outputs\n")

    blocked.unlink()
    started.clear()
    assert reproduce.main(["table1", "table4"]) == 0
    assert started == [planned[1].overrides]
    assert "\n8 runs: 8 complete, 0 diverged, 0 failed\ncompare" in capsys.readouterr().out


def test_bootstrapped_run_is_trained_after_the_run_that_predicts_its_labels(use_cells, started):
    use_cells(
        cell("table4/noise40/tiny/bootstrap_sam", labels_from="dataset.label_noise=0.4"),
        # The same source again, later: it must stay before the run that needs it.
        cell("table4/noise40/tiny/sam", "dataset.label_noise=0.4"),
    )
    assert reproduce.main(["table4", "--seeds", "1"]) == 0
    source, run = started
    assert "dataset.label_noise=0.4" in source
    (relabelled,) = [text for text in run if text.startswith("dataset.relabel_from=")]
    assert read_result(Path(relabelled.partition("=")[2]))["status"] == "complete"


@pytest.mark.slow
def test_launcher_of_hydra_trains_first_what_labels_come_from_and_then_the_rest(use_cells, started, capsys):
    use_cells(
        cell("table4/noise40/tiny/bootstrap_sam", labels_from="dataset.label_noise=0.4"),
        cell("table1/tiny/sgd", "optimizer.lr=1e30 optimizer.clip_norm=null", seeds="1"),
    )
    words = ["table1", "table4", "--seeds", "2", "outputs=with space", "hydra/launcher=basic"]
    assert reproduce.main(words) == 0
    (first, second), cells = started, read_cells(reproduce.CELLS)
    for command in (first, second):
        assert (command[0], command[2:]) == ("-m", ("hydra/launcher=basic", "outputs=with space"))
    runs = [run for one in cells for run in runs_of(one, [0, 1], ["outputs=with space"])]
    listed = [Path(command[1].partition("=")[2].strip("'")).read_text() for command in (first, second)]
    sources = [run for run in runs if run.config.dataset.relabel_from is None]
    assert [shlex.split(line) for line in listed[0].splitlines()] == [list(run.overrides) for run in sources]
    assert len(listed[1].splitlines()) == 2 and listed[1].count("dataset.relabel_from=") == 2
    assert all(read_result(run.directory) for run in runs)
    assert "\n6 runs: 4 complete, 2 diverged, 0 failed\ncompare: " in capsys.readouterr().out


def test_diverged_run_is_counted_and_no_failure(use_cells, started, capsys):
    use_cells(cell("table1/tiny/sgd", "optimizer.lr=1e30 optimizer.clip_norm=null", seeds="1"))
    assert reproduce.main(["table1"]) == 0
    assert "\n1 run: 0 complete, 1 diverged, 0 failed\n" in capsys.readouterr().out


@pytest.mark.slow
def test_force_trains_ended_runs_again(use_cells, started):
    use_cells(cell("table1/tiny/sgd", seeds="1"))
    for arguments in (["table1"], ["table1"], ["table1", "force=true"]):
        assert reproduce.main(arguments) == 0
    assert len(started) == 2


@pytest.mark.parametrize(("code", "expected"), [(130, 130), (143, 143), (-2, 130), (-15, 143)])
def test_stopped_run_stops_the_rest(use_cells, monkeypatch, capsys, code, expected):
    use_cells(cell("table1/tiny/sgd", seeds="3"))
    codes = iter([1, code])
    monkeypatch.setattr(reproduce, "_run", lambda overrides: next(codes))
    assert reproduce.main(["table1"]) == expected
    assert capsys.readouterr().out.endswith("\nstopped; the same command goes on\n")


def test_killed_run_is_a_failed_one(use_cells, monkeypatch, capsys):
    use_cells(cell("table1/tiny/sgd", seeds="3"))
    monkeypatch.setattr(reproduce, "_run", lambda overrides: -signal.SIGKILL)
    assert reproduce.main(["table1"]) == 1
    assert "\n3 runs: 0 complete, 0 diverged, 3 failed\n" in capsys.readouterr().out


@pytest.mark.slow
def test_run_trains_in_a_process_of_its_own(use_cells):
    use_cells(cell("table1/tiny/sgd", seeds="1"))
    assert reproduce.main(["table1"]) == 0
    (run,) = runs_of(read_cells(reproduce.CELLS)[0], [0])
    assert read_result(run.directory)["status"] == "complete"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_leaves_the_run_the_time_to_save_its_state(tmp_path, monkeypatch, number, code):
    (tmp_path / "train.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "try:\n"
        "    pathlib.Path('begun').touch()\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1)\n"
        "    pathlib.Path('saved').write_text(sys.argv[1])\n"
        f"    sys.exit({code})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    processes = []
    popen = reproduce.subprocess.Popen

    def start(*arguments):
        processes.append(popen(*arguments))
        return processes[-1]

    monkeypatch.setattr(reproduce.subprocess, "Popen", start)

    def interrupt():
        while not Path("begun").exists():
            time.sleep(0.05)
        # A terminal sends Ctrl-C to both processes; other signals reach only this process.
        for pid in (processes[0].pid, os.getpid()) if number == signal.SIGINT else (os.getpid(),):
            os.kill(pid, number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert reproduce._run(["a=b c"]) == code
    thread.join()
    assert Path("saved").read_text() == "a=b c"
