"""Tests of the experiment with texts, with a tiny transformer and made-up texts."""

import csv
import random

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from sam.system.errors import ConfigError
from scripts.benchmarks import text_experiment
from scripts.benchmarks.text_experiment import Experiment, Setting

WORDS = ("pixel", "board", "apple", "current")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return a model with one layer, and texts that name their class and other words."""
    for name, value in {"NUM_TRAIN": 24, "NUM_HELD_OUT": 8, "BATCH_SIZE": 8, "SEEDS": (1, 2)}.items():
        monkeypatch.setattr(text_experiment, name, value)
    model, texts = tmp_path / "model", tmp_path / "texts"
    model.mkdir()
    texts.mkdir()
    (model / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "the"]))
    BertTokenizerFast(str(model / "vocab.txt")).save_pretrained(model)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=10, **sizes)).save_pretrained(model)
    draw = random.Random(0)
    for split in ("train", "test"):
        lines = ["Category\tText", "d\tstring", "class\t", "sci.space\tanother class"]
        for number in range(48):
            words = [WORDS[number % 4], *draw.choices(["the"], k=draw.randint(1, 6))]
            lines.append(f"{text_experiment.CLASSES[number % 4]}\t{' '.join(words)}")
        (texts / f"20newsgroups-{split}.tab").write_text("\n".join(lines) + "\n")
    return model, texts


def test_texts_have_their_classes_and_no_more_columns_than_they_need(folders):
    model, texts = folders
    found = text_experiment.read_texts(model, texts / "20newsgroups-train.tab")
    assert found.classes.bincount().tolist() == [12, 12, 12, 12]
    assert (found.tokens[:4, 1] - 5).tolist() == [0, 1, 2, 3]  # the word after [CLS]
    part = found.part(torch.tensor([2, 5]))
    assert part.tokens.shape[1] == int(part.mask.sum(1).max()) < text_experiment.LENGTH


def test_seeds_draw_training_texts_and_hold_out_the_same(folders, tmp_path):
    experiment = Experiment(*folders, tmp_path / "runs.csv")
    held_out, one = experiment._split(1)
    again, other = experiment._split(2)
    assert torch.equal(held_out.tokens, again.tokens) and not torch.equal(one.classes, other.classes)
    assert (len(held_out.classes), len(one.classes)) == (8, 24)


@pytest.mark.slow
def test_all_runs_are_made_once_and_the_table_continues_after_a_stop(folders, tmp_path, monkeypatch):
    runs = tmp_path / "runs.csv"
    lines = list(text_experiment.results(Experiment(*folders, runs), epochs=1))
    assert [line.split(",")[0] for line in lines] == ["adamw", "adamw", "sam"]
    assert lines[2].count("minus adamw of") == 2
    text = runs.read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["split"] for row in rows] == ["validation"] * 9 + ["test"] * 6
    assert {(row["method"], row["epochs"], row["passes"]) for row in rows} == {
        ("adamw", "1", "1"),
        ("adamw", "2", "2"),
        ("sam", "1", "2"),
    }
    runs.write_text("\n".join(text.splitlines()[:-2]) + "\n")
    assert list(text_experiment.results(Experiment(*folders, runs), epochs=1)) == lines
    again = list(csv.DictReader(runs.read_text().splitlines()))
    assert [row["error_pct"] for row in again] == [row["error_pct"] for row in rows]
    monkeypatch.setattr(text_experiment, "train", None)
    assert list(text_experiment.results(Experiment(*folders, runs), epochs=1)) == lines


def test_network_learns_the_classes(folders):
    model, texts = folders
    found = text_experiment.read_texts(model, texts / "20newsgroups-train.tab")
    for rho in (0.0, 0.05):
        torch.manual_seed(0)
        network = text_experiment.Classifier(model)
        before = text_experiment.error_pct(network, found)
        text_experiment.train(network, found, Setting(20, 1e-2, rho), seed=0)
        assert text_experiment.error_pct(network, found) < 10 < before


def test_missing_model_is_named(folders, tmp_path):
    _, texts = folders
    with pytest.raises(ConfigError, match="there is no file .*nowhere/config.json"):
        Experiment(tmp_path / "nowhere", texts, tmp_path / "runs.csv")
