"""train.py with cheaper rules: the passes they make, resuming a stopped run, and phases without an update."""

import pytest
import torch

from sam.record.directory import read_result
from tests.run.test_train_workers import stopped_and_continued, weights
from tests.test_train import metrics, only_run
from tests.tiny import TINY

# Four epochs of two updates of 16 images.
EIGHT_UPDATES = [*TINY, "epochs=4"]
LOOK_SAM = ["optimizer.interval=3", "optimizer.reuse=0.7"]


@pytest.mark.parametrize(
    ("arguments", "per_epoch"),
    [
        ([], [2, 2, 2, 2]),
        (["optimizer=sgd"], [1, 1, 1, 1]),
        # Updates 0, 3 and 6 are SAM updates.
        (LOOK_SAM, [1.5, 1.5, 1, 1.5]),
        (["optimizer.interval=3"], [1.5, 1.5, 1, 1.5]),
        (["optimizer.start=0.5"], [1, 1, 2, 2]),
        (["optimizer.start=0.7", "optimizer.stop=0.8"], [1, 1, 1, 1.5]),
        (["optimizer.ascent_fraction=0.25"], [1.25] * 4),
        (["optimizer.ascent_fraction=0.25", "m=8"], [1.25] * 4),
        # A tenth of 16 images is rounded to two images.
        (["optimizer.ascent_fraction=0.1"], [1.125] * 4),
        (["optimizer.ascent_fraction=0.25", "optimizer.interval=2"], [1.125] * 4),
        (["optimizer.perturb=norm"], [2, 2, 2, 2]),
        (["optimizer.ascent_steps=3"], [4, 4, 4, 4]),
        (["optimizer.second_order=true"], [2, 2, 2, 2]),
        (["optimizer.rule=msam", "m=8"], [1, 1, 1, 1]),
        (["optimizer.rule=s2_sam", "m=8"], [1, 1, 1, 1]),
        (["optimizer.rule=f_sam", "m=8"], [2, 2, 2, 2]),
        (["optimizer.rule=vasso", "optimizer.interval=3"], [1.5, 1.5, 1, 1.5]),
        (["optimizer.rule=le_sam", "optimizer.rho=1"], [2, 2, 2, 2]),
        (["optimizer.rule=functional_sam", "m=8"], [2, 2, 2, 2]),
        (["optimizer.rule=stable_sam", "m=8"], [2, 2, 2, 2]),
    ],
)
def test_run_counts_the_passes_that_it_makes(command, tmp_path, arguments, per_epoch):
    code, _, err = command("train.py", *EIGHT_UPDATES, *arguments)
    assert code == 0, err
    directory = only_run(tmp_path)
    result, rows = read_result(directory), metrics(directory)
    assert result["status"] == "complete"
    assert [float(row["passes"]) for row in rows] == per_epoch
    assert result["forward_backward_passes"] == 2 * sum(per_epoch)
    assert {row["unperturbed"] for row in rows} == ({""} if per_epoch == [1] * 4 else {"0.0"})


@pytest.mark.slow
def test_rules_learn_different_weights(command, tmp_path):
    rules = {
        "sam": [],
        "sgd": ["optimizer=sgd"],
        "interval": LOOK_SAM[:1],
        "reuse": LOOK_SAM,
        "late": ["optimizer.start=0.5"],
        "part": ["optimizer.ascent_fraction=0.25"],
        "norm": ["optimizer.perturb=norm"],
    }
    learnt = []
    for name, arguments in rules.items():
        assert command("train.py", *EIGHT_UPDATES, *arguments, f"outputs={name}")[0] == 0
        learnt.append(weights(only_run(tmp_path / name))["conv.weight"])
    for number, one in enumerate(learnt):
        assert not any(torch.equal(one, other) for other in learnt[:number])


def test_interval_longer_than_the_run_perturbs_once(command, tmp_path):
    assert command("train.py", *EIGHT_UPDATES, "optimizer.interval=100")[0] == 0
    assert read_result(only_run(tmp_path))["forward_backward_passes"] == 9


def test_late_phase_begins_as_sgd_does(command, tmp_path):
    assert command("train.py", *EIGHT_UPDATES, "optimizer=sgd", "outputs=sgd")[0] == 0
    assert command("train.py", *EIGHT_UPDATES, "optimizer.start=0.5", "outputs=late")[0] == 0
    sgd, late = (metrics(only_run(tmp_path / name)) for name in ("sgd", "late"))
    for key in ("train_loss", "test_loss", "passes"):
        assert [row[key] for row in sgd[:2]] == [row[key] for row in late[:2]]
    assert sgd[3]["train_loss"] != late[3]["train_loss"]
    assert [row["perturbed_loss"] != "" for row in late] == [False, False, True, True]


@pytest.mark.parametrize(
    "ended_in", [2, 5, *(pytest.param(update, marks=pytest.mark.slow) for update in (3, 4, 8))]
)
def test_look_sam_stopped_anywhere_goes_on_to_the_same_bits(command, tmp_path, monkeypatch, ended_in):
    arguments = [*EIGHT_UPDATES, *LOOK_SAM, "m=8", "augmentation=basic"]
    runs = stopped_and_continued(command, tmp_path, monkeypatch, arguments, ended_in)
    results = [read_result(directory) for directory in runs]
    assert [result["forward_backward_passes"] for result in results] == [11, 11]


@pytest.mark.parametrize("rule", ["msam", "s2_sam", pytest.param("f_sam", marks=pytest.mark.slow)])
def test_rule_with_a_memory_stopped_in_the_middle_goes_on_to_the_same_bits(
    command, tmp_path, monkeypatch, rule
):
    arguments = [*EIGHT_UPDATES, f"optimizer.rule={rule}", "optimizer.rho=0.5", "m=8", "augmentation=basic"]
    stopped_and_continued(command, tmp_path, monkeypatch, arguments, 4)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            ["optimizer.start=0.5", "optimizer.stop=0.5"],
            "optimizer.start=0.5 is not before optimizer.stop=0.5: SAM would never perturb; move them apart, "
            "or use optimizer=sgd",
        ),
        (
            ["optimizer.start=0.6", "optimizer.stop=0.4"],
            "optimizer.start=0.6 is not before optimizer.stop=0.4",
        ),
        # Updates 0 and 1 begin at 0 and 1/2 of the run.
        (
            ["optimizer.start=0.99"],
            "optimizer: start=0.99 and stop=1.0 leave SAM no update of 2; move them apart, or train longer",
        ),
        (["optimizer.start=0.51"], "optimizer: start=0.51 and stop=1.0 leave SAM no update of 2"),
        (["optimizer.start=0.1", "optimizer.stop=0.2"], "start=0.1 and stop=0.2 leave SAM no update of 2"),
    ],
)
def test_phase_without_an_update_is_refused_before_anything_is_written(command, tmp_path, phase, message):
    code, out, err = command("train.py", *TINY, *phase)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    ("phase", "num_passes"), [(["optimizer.start=0.5"], 3), (["optimizer.stop=0.01"], 3)]
)
def test_phase_of_a_single_update_is_allowed(command, tmp_path, phase, num_passes):
    assert command("train.py", *TINY, *phase)[0] == 0
    assert read_result(only_run(tmp_path))["forward_backward_passes"] == num_passes


def test_sgd_does_not_ask_whether_sam_would_have_an_update(command, tmp_path):
    assert command("train.py", *TINY, "optimizer=sgd", "optimizer.start=0.99")[0] == 0
    assert read_result(only_run(tmp_path))["forward_backward_passes"] == 2


def test_norm_layers_alone_are_refused_for_a_network_that_has_none(command, tmp_path):
    arguments = ["model=wrn_16_4", "model.width=1", "model.batch_norm=false", "optimizer.perturb=norm"]
    code, _, err = command("train.py", *TINY, *arguments)
    assert code == 2
    assert "optimizer: perturb=norm: this model has no normalisation layer with weights" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("config.yaml"))
