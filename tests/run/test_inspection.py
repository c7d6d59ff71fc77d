"""Tests of sam/run/inspection.py and sam/analysis/measure.py with whole runs of train.py and evaluate.py."""

import json

import numpy
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sam.analysis import compiled_product
from sam.record.analyses import NAMES, read_analyses
from tests.test_train import metrics
from tests.tiny import TINY

# Each takes about a second. Together they use all options of an analysis.
QUICK = [
    "analysis.m=[1,8]",
    "analysis.ascent_steps=[1,2]",
    "analysis.top=2",
    "analysis.steps=5",
    "analysis.probes=2",
    "analysis.points=3",
    "analysis.num_batches=1",
    "analysis.chunk_size=16",
]
RUN = [*TINY, "epochs=3", "dataset.label_noise=0.25"]


def train(command, *arguments, outputs="outputs"):
    code, _, error = command("train.py", *RUN, f"outputs={outputs}", *arguments)
    assert code == 0, error


@pytest.fixture
def run(command, tmp_path):
    """Train one run and return its directory."""
    train(command)
    (path,) = tmp_path.rglob("result.json")
    return path.parent


@pytest.fixture
def analyse(command, run):
    """Analyse the run with evaluate.py; return exit code, stdout and stderr."""
    return lambda *arguments: command("evaluate.py", f"run={run}", *QUICK, *arguments)


def only(directory, name):
    analyses, problems = read_analyses(directory, name)
    assert not problems
    (found,) = analyses
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sharpness", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
)
def test_analysis_during_training_changes_no_bit_and_evaluate_gives_the_same_numbers(
    command, tmp_path, run, name
):
    train(command, f"analysis={name}", "analysis.every=2", *QUICK, outputs="watched")
    (watched,) = [path.parent for path in (tmp_path / "watched").rglob("result.json")]
    assert watched.name == run.name
    times = ("seconds", "images_per_second")
    rows = [
        [{key: row[key] for key in row if key not in times} for row in metrics(directory)]
        for directory in (run, watched)
    ]
    assert rows[0] == rows[1]
    states = [torch.load(directory / "checkpoint.pt", weights_only=True) for directory in (run, watched)]
    for part in ("model", "random"):
        assert str(states[0][part]) == str(states[1][part])
    for key, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][key])

    scheduled = read_analyses(watched, name)[0]
    assert [analysis.epoch for analysis in scheduled] == [1, 2, 3]
    for analysis in scheduled:
        with Image.open(analysis.path.with_suffix(".png")) as picture:
            assert picture.format == "PNG"
    code, out, _ = command("evaluate.py", f"run={run}", f"analysis={name}", *QUICK)
    afterwards = only(run, name)
    assert (code, afterwards.path.name) == (0, scheduled[-1].path.name)
    assert afterwards.result == scheduled[-1].result
    assert f"{name} of the train split after 3 epochs: {afterwards.summary}" in out
    assert f"written to {afterwards.path}" in out
    assert len(list((run / "tensorboard").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sharpness", "landscape"])
def test_existing_analysis_is_not_repeated_unless_it_is_damaged(analyse, run, name):
    analyse(f"analysis={name}")
    found = only(run, name)
    text = found.path.read_text()
    events = len(list((run / "tensorboard").iterdir()))
    _, out, _ = analyse(f"analysis={name}")
    assert found.path.read_text() == text  # including the time of writing
    assert "passes over an image" not in out
    assert len(list((run / "tensorboard").iterdir())) == events
    analyse(f"analysis={name}", "analysis.num_images=16")
    assert len(read_analyses(run, name)[0]) == 2
    found.path.write_text(text[:50])
    _, out, _ = analyse(f"analysis={name}")
    assert "passes over an image" in out
    assert found.path in [analysis.path for analysis in read_analyses(run, name)[0]]


@pytest.mark.parametrize(("split", "evaluated"), [("train", "train"), ("test", "test")])
def test_analysis_uses_the_images_and_labels_of_its_split(command, analyse, run, split, evaluated):
    analyse("analysis=sharpness", f"analysis.split={split}")
    command("evaluate.py", f"run={run}", f"split={evaluated}")
    record = only(run, "sharpness").record
    evaluation = json.loads((run / f"evaluation-{evaluated}.json").read_text())
    assert record["num_images"] == evaluation["num_images"]
    assert record["loss"] == pytest.approx(evaluation["loss"], rel=1e-5)
    assert record["error_pct"] == evaluation["error_pct"]


def test_analysis_takes_classes_in_equal_shares_in_mixed_order(analyse, run, monkeypatch):
    seen = []
    measure = "sam.analysis.sharpness.measure_sharpness"
    monkeypatch.setattr(measure, lambda sample, *_, **__: seen.append(sample) or [])
    monkeypatch.setattr("sam.figures.analysis.draw_analysis", lambda _: Figure())
    monkeypatch.setattr("sam.record.analyses.SUMMARIES", {"sharpness": str})
    analyse("analysis=sharpness", "analysis.num_images=16", "analysis.dtype=float64")
    analyse("analysis=sharpness", "analysis.num_images=16", "analysis.statistics=batch")
    for sample in seen:
        assert len(sample) == 16
    assert seen[0].images.dtype == torch.float64
    assert [sample.batch_statistics for sample in seen] == [False, True]
    assert not seen[0].network.training


def test_surface_that_was_interrupted_goes_on(analyse, run):
    analyse("analysis=landscape")
    found = only(run, "landscape")
    with numpy.load(found.arrays) as arrays:
        whole = dict(arrays)
    assert whole["loss"].shape == (3, 3)
    assert whole["loss"][1, 1] == found.record["loss"]
    begun = {key: array.copy() for key, array in whole.items()}
    begun["loss"][1:] = numpy.nan
    begun["loss"][0, 0] = 7.0  # stays, since this point is not measured again
    found.path.unlink()
    numpy.savez(found.arrays, **begun)
    analyse("analysis=landscape")
    with numpy.load(found.arrays) as arrays:
        whole["loss"][0, 0] = 7.0
        assert all(numpy.array_equal(arrays[key], whole[key]) for key in whole)


@pytest.mark.slow
def test_surface_between_two_runs_ends_at_both(command, analyse, run, tmp_path):
    train(command, "seed=1")
    (other,) = [path.parent for path in tmp_path.rglob("result.json") if path.parent != run]
    line = ["analysis.dimensions=1", "analysis.directions=run", f"analysis.other={other}", "analysis.span=2"]
    # On test images, since the two runs have different wrong labels.
    code, _, error = analyse("analysis=landscape", "analysis.points=5", "analysis.split=test", *line)
    assert code == 0, error
    command("evaluate.py", f"run={other}", "analysis=sharpness", "analysis.split=test", *QUICK)
    with numpy.load(only(run, "landscape").arrays) as arrays:
        losses = dict(zip(arrays["steps_1"].tolist(), arrays["loss"].tolist(), strict=True))
    assert min(losses) < 0 and max(losses) > 1
    assert losses[0.0] == only(run, "landscape").record["loss"]
    assert losses[1.0] == only(other, "sharpness").record["loss"]
    assert losses[1.0] != losses[0.0]


def test_surface_says_how_many_of_its_points_are_not_finite(analyse, run):
    _, out, _ = analyse("analysis=landscape", "analysis.span=1e12")
    found = only(run, "landscape")
    assert (found.result["points"], found.result["not_finite"]) == (9, 8)
    assert found.summary.endswith("around them; not finite at 8 of 9 points")
    assert found.summary in out


def test_hessian_per_layer_covers_all_weights_and_has_a_file_of_its_own(analyse, run):
    code, out, _ = analyse("analysis=hessian", "analysis.per_layer=true", "analysis.chunk_size=32")
    assert code == 0
    found = only(run, "hessian")
    layers = found.result["layers"]
    assert sum(layer["num_parameters"] for layer in layers) == found.result["num_parameters"]
    highest = max(layers, key=lambda layer: layer["lambda_max"])
    assert found.result["lambda_max"] >= 0.999 * highest["lambda_max"] - found.result["residuals"][0]
    assert f"highest of {len(layers)} layers {highest['lambda_max']:.4g} ({highest['name']})" in out
    plain = found.record["settings"].copy()
    assert plain.pop("per_layer") is True
    assert plain == {"top": 2, "steps": 5, "probes": 2, "seed": 0, "save_vectors": False}


@pytest.mark.slow
def test_run_with_compile_has_its_products_compiled(command, monkeypatch, tmp_path):
    compiled = []

    def compile_nothing(function, **_):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    results = []
    for value in ("true", "false"):
        outputs = f"compile_{value}"
        train(command, f"runtime.compile={value}", "analysis=hessian", *QUICK, "epochs=1", outputs=outputs)
        (path,) = (tmp_path / outputs).rglob("result.json")
        results.append(only(path.parent, "hessian").result)
    assert [result["compiled"] for result in results] == [True, False]
    assert results[0]["eigenvalues"] == pytest.approx(results[1]["eigenvalues"], rel=1e-3)
    assert compiled.count(compiled_product._product) == 1


@pytest.mark.slow
def test_surface_along_eigenvectors_needs_them(analyse, run):
    wanted = ["analysis=landscape", "analysis.directions=eigenvectors"]
    code, _, error = analyse(*wanted)
    assert code == 2
    assert error == (
        f"error: analysis.directions=eigenvectors: {run} has none of this moment, split and statistics; "
        f"first run python evaluate.py run={run} analysis=hessian analysis.save_vectors=true\n"
    )
    assert analyse("analysis=hessian", "analysis.save_vectors=true")[0] == 0
    assert analyse(*wanted)[0] == 0
    with numpy.load(only(run, "hessian").arrays) as arrays:
        assert arrays["eigenvectors"].shape == (2, only(run, "hessian").result["num_parameters"])
    assert only(run, "landscape").result["loss_at_centre"] == only(run, "landscape").record["loss"]


@pytest.mark.slow
def test_evaluate_of_a_folder_analyses_every_run_below_it(command, run, tmp_path):
    train(command, "seed=1")
    code, _, _ = command("evaluate.py", f"run={tmp_path / 'outputs'}", "analysis=sharpness", *QUICK)
    assert code == 0
    assert len(list(tmp_path.rglob("sharpness-epoch3-*.json"))) == 2
    assert command("evaluate.py", f"run={tmp_path / 'outputs'}")[0] == 0
    assert len(list(tmp_path.rglob("evaluation-test.json"))) == 2


@pytest.mark.slow
def test_evaluate_of_a_folder_goes_on_after_a_run_that_cannot_be_read(command, run, tmp_path):
    train(command, "seed=1")
    (run / "checkpoint.pt").unlink()
    code, _, error = command("evaluate.py", f"run={tmp_path / 'outputs'}", "analysis=sharpness", *QUICK)
    assert code == 2
    assert error == (
        f"error: 1 of 2 runs were skipped:\n{run}: run={run} has no checkpoint yet; train it first\n"
    )
    assert len(list(tmp_path.rglob("sharpness-epoch3-*.json"))) == 1


def test_interrupted_run_catches_up_with_the_analysis_of_its_last_epoch(command, run):
    # As if it was killed between its second checkpoint and the analysis.
    (run / "result.json").unlink()
    train(command, "analysis=sharpness", "analysis.every=2", *QUICK)
    assert [analysis.epoch for analysis in read_analyses(run, "sharpness")[0]] == [3]


@pytest.mark.parametrize("name", NAMES)
def test_run_that_diverges_ends_as_diverged_with_any_analysis(command, tmp_path, name):
    train(command, "optimizer.lr=1e30", "optimizer.clip_norm=null", f"analysis={name}", *QUICK)
    (path,) = tmp_path.rglob("result.json")
    assert json.loads(path.read_text())["status"] == "diverged"
    assert not (path.parent / "analysis").exists()


def test_analysis_that_fails_does_not_stop_the_training(command, tmp_path):
    hopeless = ["analysis=hessian", "analysis.every=2", *QUICK, "analysis.top=99999"]
    code, out, _ = command("train.py", *RUN, *hopeless)
    assert code == 0
    for epoch in (1, 2, 3):
        assert f"warning: epoch {epoch} is not analysed: analysis=hessian: top must be from 1 to" in out
    (path,) = tmp_path.rglob("result.json")
    assert json.loads(path.read_text())["status"] == "complete"


@pytest.mark.slow
def test_picture_cut_short_is_drawn_again_and_stops_no_run(command, analyse, run):
    analyse("analysis=sharpness")
    picture = only(run, "sharpness").path.with_suffix(".png")
    whole = picture.read_bytes()
    picture.write_bytes(b"")
    (run / "result.json").unlink()
    train(command)  # TensorBoard skips the damaged picture
    assert (run / "result.json").exists()
    picture.unlink()
    analyse("analysis=sharpness")
    assert picture.read_bytes() == whole


@pytest.mark.parametrize(
    ("variant", "told"),
    [("adaptive=true", "adaptive=True"), ("p=inf", "p=inf"), ("p=3", "p=3.0"), ("rule=msam", "rule=msam")],
)
def test_second_order_term_is_that_of_the_plain_ball(command, tmp_path, variant, told):
    train(command, f"optimizer.{variant}")
    (path,) = tmp_path.rglob("result.json")
    code, _, error = command("evaluate.py", f"run={path.parent}", "analysis=second_order", *QUICK)
    assert (code, error) == (
        2,
        f"error: analysis=second_order: this run has optimizer.{told}, and the second-order term is defined "
        "for rule=sam, adaptive=false, p=2 and direction=gradient (Eq. 3); use a run with these values\n",
    )


def test_images_held_out_are_called_validation(command, tmp_path):
    train(command, "dataset.num_train=160", "dataset.validation=random")
    (path,) = tmp_path.rglob("result.json")
    command("evaluate.py", f"run={path.parent}", "analysis=sharpness", "analysis.split=test", *QUICK)
    assert only(path.parent, "sharpness").record["split"] == "validation"


def test_split_of_an_evaluation_is_refused_for_an_analysis(analyse):
    code, _, error = analyse("analysis=sharpness", "split=test")
    assert code == 0
    code, _, error = analyse("analysis=sharpness", "split=train")
    assert (code, error) == (
        2,
        "error: split=train applies only without an analysis; with analysis=sharpness, set "
        "analysis.split=train or test\n",
    )


@pytest.mark.slow
def test_force_deletes_the_analyses_of_the_old_run(command, analyse, run):
    analyse("analysis=sharpness")
    train(command, "force=true")
    assert not (run / "analysis").exists()


def test_path_of_a_run_ends_at_its_last_weights_on_the_surface_of_its_components(command, tmp_path):
    train(command, "runtime.keep_weights_every=1", "optimizer.rule=msam")
    (run,) = [path.parent for path in tmp_path.rglob("result.json")]
    assert {path.name for path in (run / "weights").iterdir()} == {f"epoch{k}.pt" for k in range(4)}
    wanted = ["analysis=landscape", "analysis.directions=trajectory", *QUICK, "analysis.statistics=batch"]
    code, out, error = command("evaluate.py", f"run={run}", *wanted)
    assert code == 0, error
    found = only(run, "landscape")
    assert [point["epoch"] for point in found.result["path"]] == [0, 1, 2, 3]
    assert found.result["path"][-1]["coordinates"] == [0, 0]
    first, second = found.result["explained_pct"]
    assert 100 > first > second > 0
    assert f"the components explain {first:.1f} % and {second:.1f} % of the path" in out
    assert found.result["loss_at_centre"] == found.record["loss"]
    with numpy.load(found.arrays) as arrays:
        coordinates = [point["coordinates"] for point in found.result["path"]]
        assert arrays["path"].tolist() == coordinates
        for axis, along in enumerate(zip(*coordinates, strict=True)):
            ends = arrays[f"steps_{axis + 1}"][[0, -1]]
            extent = max(along) - min(along)
            assert ends == pytest.approx([min(along) - extent / 2, max(along) + extent / 2])
    assert found.path.with_suffix(".png").exists()


def test_run_without_kept_weights_says_how_to_keep_them(analyse):
    code, _, error = analyse("analysis=landscape", "analysis.directions=trajectory")
    assert code == 2
    assert "train it again with runtime.keep_weights_every=1 and force=true" in error
