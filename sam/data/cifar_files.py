"""Reads the files of CIFAR's python version, which are pickles, without running code in them.

A pickle may call any function of any module. This reader allows only the calls that build a numpy array.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam.data.unverified import readable
from sam.system.foreign_files import open_regular

NUM_BYTES = 3 * 32 * 32


def _from_buffer(content: bytes, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(content, dtype).reshape(shape, order=order)


# What each global name in a pickle of an array stands for. Old and new numpy write different module names.
_MULTIARRAY = {"_reconstruct": lambda *_: np.empty(0, np.uint8)}
_NUMERIC = {"_frombuffer": _from_buffer}
ALLOWED: dict[str, dict[str, Any]] = {
    "numpy.core.multiarray": _MULTIARRAY,
    "numpy._core.multiarray": _MULTIARRAY,
    "numpy.core.numeric": _NUMERIC,
    "numpy._core.numeric": _NUMERIC,
    # ndarray is only named, as an argument of _reconstruct; calling it is an error.
    "numpy": {"dtype": np.dtype, "ndarray": None},
    # Python 3 writes bytes this way in old protocols.
    "_codecs": {"encode": lambda text, _: text.encode("latin1")},
}


class _Unpickler(pickle.Unpickler):
    """Refuses every global name that is not in ALLOWED."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a global name stands for."""
        if name not in ALLOWED.get(module, {}):
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no file of CIFAR does")
        return ALLOWED[module][name]


def read_batches(paths: Sequence[Path]) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Read batches of images.

    Args:
        paths: At least one file, such as data_batch_1 or train.

    Returns:
        Pixels, uint8 [N, 32, 32, 3], and N labels.

    Raises:
        ValueError: If a file is not such a batch.
    """
    batches = [_read_batch(path) for path in paths]
    pixels = np.vstack([rows for rows, _ in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pixels, [label for _, labels in batches for label in labels]


def read_names(path: Path, key: str) -> tuple[str, ...]:
    """Read the names of the classes.

    Args:
        path: The file batches.meta or meta.
        key: The key of the names: label_names or fine_label_names.

    Raises:
        ValueError: If the file has no such list of names.
    """
    names = _read(path).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path.absolute()} has no list of names called {key}")
    return tuple(names)


def _read_batch(path: Path) -> tuple[np.ndarray[Any, Any], list[int]]:
    content = _read(path)
    pixels = content.get("data")
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"{path.absolute()} has no array called data")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != NUM_BYTES:
        raise ValueError(
            f"{path.absolute()}: data is {pixels.dtype} {list(pixels.shape)}; CIFAR has "
            f"uint8 [N, {NUM_BYTES}]"
        )
    labels = content.get("labels", content.get("fine_labels"))
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{path.absolute()} has no list of whole numbers called labels or fine_labels")
    if len(labels) != len(pixels):
        raise ValueError(f"{path.absolute()} has {len(pixels)} images and {len(labels)} labels")
    return pixels, labels


def _read(path: Path) -> dict[Any, Any]:
    with readable(path, " as a file of CIFAR"), open_regular(path) as file:
        # The originals are of Python 2, whose text is bytes.
        content = _Unpickler(file, encoding="latin1").load()
    if not isinstance(content, dict):
        raise ValueError(f"{path.absolute()} holds a {type(content).__name__}; a file of CIFAR holds a dict")
    return content
