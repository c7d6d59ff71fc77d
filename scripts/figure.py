"""Draw what a config does: python scripts/figure.py batch [KEY=VALUE ...] [--out FILE].

batch   the first training images of epoch 0 as the network gets them, with their labels, at most 64

Keys are those of train.py. The picture is a PNG.

    python scripts/figure.py batch dataset=cifar10 augmentation=cutout
"""

import argparse
import dataclasses
import math
import pathlib
import sys
import textwrap
from collections.abc import Sequence

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from matplotlib.figure import Figure  # noqa: E402
from torch import Tensor  # noqa: E402

from sam import build_data  # noqa: E402
from sam.cli import composed, report_mistakes  # noqa: E402
from sam.config import ConfigError, TrainConfig  # noqa: E402
from sam.data.augmentation import Normalization  # noqa: E402
from sam.training.distributed import World  # noqa: E402

MAX_IMAGES = 64
NUM_COLUMNS = 8
INCHES = 1.4  # side of an image
DOTS_PER_INCH = 150


def draw_batch(config: TrainConfig, path: pathlib.Path) -> None:
    """Draw one augmented training batch as a sheet of images.

    Args:
        config: Of a run.
        path: The PNG to write.
    """
    config.runtime.workers = 0  # the images do not depend on it, and one batch is soon made
    device = torch.device("cpu")
    data = build_data.dataset(config.dataset, config.seed)
    batches = build_data.train_batches(config, data, device, World())
    images, targets, _ = next(batches.epoch(0))
    normalize = build_data.normalization(config.model, data, device)
    chosen = dataclasses.asdict(config.augmentation)
    keys = ", ".join(f"{key}={value}".lower() for key, value in chosen.items() if key != "name")
    figure = sheet(
        pictures(images[:MAX_IMAGES], normalize),
        captions(targets[:MAX_IMAGES], data.class_names),
        f"{config.dataset.name}, augmentation {config.augmentation.name}: {keys}",
    )
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(
            f"--out={path}: {error.strerror or error}; name a file that can be written"
        ) from error


def pictures(images: Tensor, normalize: Normalization) -> Tensor:
    """Return normalised images, [B, C, H, W], as float [B, H, W, 3] in 0 .. 1."""
    colours = images.permute(0, 2, 3, 1) * torch.tensor(normalize.std) + torch.tensor(normalize.mean)
    return colours.clamp(0, 1).expand(-1, -1, -1, 3)


def captions(targets: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return the class of each image; of soft targets, [B, K], every class with its share, a line each."""
    if targets.dim() == 1:
        return [class_names[target] for target in targets.tolist()]
    shares = [
        sorted(((share, name) for share, name in zip(row, class_names, strict=True) if share), reverse=True)
        for row in targets.tolist()
    ]
    return ["\n".join(f"{share:.2f} {name}" for share, name in row) for row in shares]


def sheet(images: Tensor, labels: Sequence[str], title: str) -> Figure:
    """Return a figure with rows of images, float [B, H, W, 3], and a label under each."""
    num_columns = min(NUM_COLUMNS, len(images))
    num_rows = math.ceil(len(images) / num_columns)
    # A label takes a line of 0.15 inches, and so does a line of the title.
    lines = max(label.count("\n") + 1 for label in labels)
    width = INCHES * num_columns
    wrapped = textwrap.wrap(title, round(14 * width))
    size = (width, (INCHES + 0.15 * lines) * num_rows + 0.2 * len(wrapped))
    figure = Figure(size, DOTS_PER_INCH, layout="constrained")
    figure.suptitle("\n".join(wrapped), fontsize=9)
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, image, label in zip(axes, images, labels, strict=False):
        axis.imshow(image.numpy())
        axis.set_title(label, fontsize=8, y=0, va="top", pad=-3)
    return figure


def main() -> None:
    """Compose, draw, say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["batch"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=pathlib.Path, help="default: batch-DATASET-AUGMENTATION.png")
    arguments = parser.parse_args()
    config = composed(arguments.overrides)
    path = arguments.out or pathlib.Path(f"batch-{config.dataset.name}-{config.augmentation.name}.png")
    draw_batch(config, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    report_mistakes(main)
