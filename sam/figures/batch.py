"""A sheet of images with their labels."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

NUM_COLUMNS = 8
INCHES = 1.4  # side of an image
DOTS_PER_INCH = 150


def draw_sheet(images: NDArray[np.float32], labels: Sequence[str], title: str) -> Figure:
    """Draw rows of images, each with its label below.

    Args:
        images: float [B, H, W, 3] in 0 .. 1; at least one image.
        labels: One label per image; a label may have several lines.
        title: The title of the sheet.
    """
    num_columns = min(NUM_COLUMNS, len(images))
    num_rows = math.ceil(len(images) / num_columns)
    # A line of a label needs 0.15 inches, a line of the title 0.2 inches.
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
        axis.imshow(image)
        axis.set_title(label, fontsize=8, y=0, va="top", pad=-3)
    return figure
