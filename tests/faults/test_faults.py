"""What machines do to runs loses none of them: a share of the campaign, and the faults that it has found."""

import csv
import json
import os
import pathlib

import pytest

from sam.record.directory import read_result
from sam.record.identity import path_of
from sam.run import worker
from tests.faults.campaign import CASES
from tests.faults.lives import config_for
from tests.quick_process import run
from tests.tiny import TINY

SCRIPT = pathlib.Path(__file__).with_name("campaign.py")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_faults_lose_nothing_and_runs_end_with_the_bits_of_undisturbed_ones(tmp_path, case):
    ended = run([SCRIPT, tmp_path, "--cases", case, "--scale", 0.05], tmp_path.parent)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with open(tmp_path / "faults.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["lost"], row["unequal"], row["unclear"]) == ("0", "0", "0")
    assert int(row["tries"]) > 0 or row["worst message"].startswith("skipped: ")
    if case == "kill":
        inside = [part for part in row["details"].split(", ") if part.startswith("inside ")]
        assert sum(int(part.split(": ")[1]) for part in inside) >= int(row["tries"]) / 5


def test_damaged_checkpoint_does_not_take_the_place_of_the_good_one_before(
    command, tmp_path, monkeypatch, capsys
):
    arguments = [*TINY, "epochs=3"]
    with monkeypatch.context() as patch:
        steps = iter([False] * 4 + [True] * 9)
        patch.setattr("sam.run.worker.StopRequest.is_set", lambda self: next(steps))
        assert command("train.py", *arguments)[0] == 128
    (newest,) = tmp_path.rglob("checkpoint.pt")
    newest.write_bytes(newest.read_bytes()[:100])
    assert newest.with_name("checkpoint.previous.pt").exists()
    replace = os.replace

    def power_cut(source, target):
        if pathlib.Path(target).name == "checkpoint.pt":
            raise OSError("power cut")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", power_cut)
        assert command("train.py", *arguments)[0] == 2
    assert command("train.py", *arguments)[0] == 0


def test_run_that_another_process_ended_meanwhile_is_left_as_it_is(command, tmp_path):
    config = config_for(tmp_path / "outputs", "sgd")
    first = worker.run(config, "again")
    before = (path_of(config) / "result.json").read_bytes()
    assert worker.run(config, "again")["ended_at"] == first["ended_at"]
    assert (path_of(config) / "result.json").read_bytes() == before


def test_run_that_has_lost_its_labels_is_evaluated_with_the_same_ones(command, tmp_path):
    assert command("train.py", *TINY, "dataset.label_noise=0.5")[0] == 0
    (labels,) = tmp_path.rglob("labels.npz")
    record = labels.with_name("evaluation-train.json")
    told = []
    for _ in range(2):
        assert command("evaluate.py", f"run={labels.parent}", "split=train")[0] == 0
        told.append(json.loads(record.read_text()))
        labels.unlink(missing_ok=True)
    assert told[0] == told[1]


def test_result_that_may_not_be_read_is_not_taken_for_a_run_that_has_not_ended(
    command, tmp_path, monkeypatch
):
    assert command("train.py", *TINY)[0] == 0
    (result,) = tmp_path.rglob("result.json")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("sam.record.run_files.read_json", refuse)
        code, _, err = command("train.py", *TINY)
    assert code == 2
    assert err == (
        f"error: [Errno 13] Permission denied: 'outputs/{result.relative_to(tmp_path / 'outputs')}'; "
        "correct this and give the same command again\n"
    )
    assert read_result(result.parent)["status"] == "complete"
