"""Whole runs with sharded weights, and with one perturbation shared by all processes."""

import json

import pytest
import torch

from sam.record.analyses import read_analyses
from sam.record.directory import read_result
from tests.quick_process import TRAIN, run
from tests.test_train import metrics, only_run
from tests.tiny import TINY

SHARED = [*TINY, "optimizer.sync_ascent=true", "optimizer.lr=0.01", "epochs=2", "dataset.num_test=15"]
TWO = ["runtime=ddp", "runtime.processes=2"]


@pytest.mark.slow
@pytest.mark.ddp
def test_run_with_sharded_weights_is_one_of_whole_weights_and_can_be_gone_on_with_by_one_process(
    command, tmp_path
):
    runs = {}
    for parallel in ("ddp", "fsdp"):
        arguments = [*SHARED, *TWO, f"runtime.parallel={parallel}", f"outputs={parallel}"]
        ended = run([TRAIN, *arguments], tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        runs[parallel] = only_run(tmp_path / parallel)
        assert read_result(runs[parallel])["parallel"] == parallel
    for row, other in zip(*map(metrics, runs.values()), strict=True):
        assert row["cosine"]
        for key in set(row) - {"seconds", "images_per_second"}:
            if row[key]:
                # float32 sums in another order; the differences grow over four updates
                assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-3, abs=1e-4), key
    # A checkpoint has whole tensors, so a single process can evaluate and continue it.
    code, _, err = command("evaluate.py", f"run={runs['fsdp']}")
    assert (code, err) == (0, "")
    evaluation = json.loads((runs["fsdp"] / "evaluation-test.json").read_text())
    assert evaluation["error_pct"] == pytest.approx(float(metrics(runs["fsdp"])[-1]["test_error_pct"]))
    before = torch.load(runs["fsdp"] / "checkpoint.pt", weights_only=True)
    (runs["fsdp"] / "result.json").unlink()
    code, _, err = command("train.py", *SHARED, "outputs=fsdp")
    assert (code, err) == (0, "")
    after = torch.load(runs["fsdp"] / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(tensor, after["model"][name]) for name, tensor in before["model"].items())
    assert read_result(runs["fsdp"])["processes"] == 1


def test_sharded_weights_need_several_processes(command):
    code, _, err = command("train.py", *SHARED, "runtime.parallel=fsdp")
    assert code == 2
    assert err == (
        "error: runtime.parallel=fsdp shards the weights over processes, and this is one; say "
        "runtime.processes=2, or runtime.parallel=ddp\n"
    )


@pytest.mark.slow
@pytest.mark.ddp
def test_the_main_process_analyses_while_the_others_wait_and_the_run_does_not_change(tmp_path):
    runs = []
    looks = ["analysis=sharpness", "analysis.m=[4]", "analysis.num_images=16"]
    for outputs, more in (("plain", []), ("watched", looks)):
        ended = run([TRAIN, *TINY, *TWO, "m=8", "epochs=2", f"outputs={outputs}", *more], tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        runs.append(only_run(tmp_path / outputs))
    assert [analysis.epoch for analysis in read_analyses(runs[1])[0]] == [1, 2]
    states = [torch.load(directory / "checkpoint.pt", weights_only=True) for directory in runs]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    assert str(states[0]["random"]) == str(states[1]["random"])
