"""Make the small dataset inside the package from the full Fashion-MNIST.

    python scripts/make_fashion_mnist_mini.py FOLDER [--out FILE]

FOLDER holds the four idx .gz files of Zalando's distribution (for example Debian's package
dataset-fashion-mnist, /usr/share/datasets/fashion-mnist). The subset is stratified: 500 training and 500
test images of each of the ten classes.
"""

import argparse
import gzip
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from sam.data.fashion_mnist_mini import PATH
from sam.data.images import stratified_subset

NUM_IMAGES = 5000


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Read one idx file: a header of 4 bytes, 4 bytes per dimension, then one byte per pixel or label."""
    data = gzip.decompress(path.read_bytes())
    num_dimensions = data[3]
    shape = np.frombuffer(data, ">i4", num_dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=PATH)
    arguments = parser.parse_args()
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(arguments.folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = stratified_subset(torch.tensor(labels).long(), NUM_IMAGES).numpy()
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    np.savez_compressed(arguments.out, **arrays)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
