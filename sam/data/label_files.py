"""Labels in files: human label noise to train on, and the record of the labels that a run was trained on."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam.system.files import replaced
from sam.system.foreign_files import check_arrays, check_torch_file

# The name of this function in a file depends on the version of numpy that wrote the file.
RESTORE_ARRAY: Any = np.empty(0).__reduce__()[0]
# The types in the original .pt files of CIFAR-10N and CIFAR-100N, besides plain containers.
SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (RESTORE_ARRAY, "numpy.core.multiarray._reconstruct"),
    (RESTORE_ARRAY, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "bhilqBHILQ"),
]


def labels_from_file(path: Path, name: str | None, num_images: int, num_classes: int) -> Tensor:
    """Read one label per training image, such as the human labels of CIFAR-10N (Wei et al. 2022).

    No code in the file is run: arrays of Python objects are refused.

    Args:
        path: A .npz file, a .npy file, or a .pt file with a dictionary of arrays.
        name: Name of an array in a .npz or .pt file, such as "worse_label"; None for a .npy file.
        num_images: Size of the whole training set; the file has its labels in the original order.
        num_classes: Number of classes; the labels are 0 .. num_classes - 1.

    Returns:
        int64 [num_images].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has another format, is damaged, lacks the array, or does not hold one valid
            label per image.
    """
    labels = _array_in(path, name)
    called = f"{path}, {name}" if name else str(path)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{called} has type {labels.dtype}; labels are whole numbers")
    if labels.shape != (num_images,):
        raise ValueError(
            f"{called} has shape {list(labels.shape)}, but the training set has {num_images} images; "
            "it needs a label for each of them, even if only a part of them is used"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"{called} has labels from {lowest} to {highest}; {num_classes} classes have the labels 0 to "
            f"{num_classes - 1}"
        )
    return torch.from_numpy(labels.astype(np.int64))


def write_labels(path: Path, clean: Tensor, trained: Tensor) -> None:
    """Write the labels of a run's training images to a file, in one step: no reader sees half of it.

    Args:
        path: A .npz file.
        clean: True classes in the order of the training images, int64 [N].
        trained: Labels that the run is trained on, int64 [N].
    """
    with replaced(path, "wb") as file:
        np.savez_compressed(file, clean=clean.cpu().numpy(), trained=trained.cpu().numpy())


def read_labels(path: Path) -> tuple[Tensor, Tensor]:
    """Read a file that `write_labels` wrote.

    Args:
        path: The labels.npz of a run directory.

    Returns:
        The true labels and the labels trained on, int64 [N] each.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged.
    """
    try:
        clean, trained = (_array_in(path, name) for name in ("clean", "trained"))
        if not clean.dtype == trained.dtype == np.int64 or clean.ndim != 1 or clean.shape != trained.shape:
            raise ValueError(
                f"{path} is damaged: clean is {clean.dtype} {list(clean.shape)} and trained {trained.dtype} "
                f"{list(trained.shape)} instead of two int64 lists of equal length"
            )
    except ValueError as error:
        raise ValueError(f"{error}; delete it: the labels are then computed again") from error
    return torch.from_numpy(clean), torch.from_numpy(trained)


def _array_in(path: Path, name: str | None) -> np.ndarray[Any, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix not in (".npz", ".npy", ".pt"):
        raise ValueError(f"{path} is not a .npz, .npy or .pt file")
    content = _read(path)
    if not isinstance(content, Mapping):
        if name is not None:
            raise ValueError(f"{path} holds a single array without a name; leave out the name {name}")
        return content
    if name not in content:
        there = ", ".join(sorted(map(str, content))) or "nothing"
        raise ValueError(f"{path} has no array {name}; it has {there}")
    return content[name]


def _as_array(content: Any) -> np.ndarray[Any, Any]:
    # numpy would turn other types, such as lists of lists, into an array of any size.
    if not isinstance(content, np.ndarray | Tensor):
        raise ValueError(f"it holds a {type(content).__name__}, which is not an array")
    return np.asarray(content)


def _read(path: Path) -> np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]:
    try:
        (check_torch_file if path.suffix == ".pt" else check_arrays)(path)
        with path.open("rb") as file:
            if path.suffix == ".pt":
                with torch.serialization.safe_globals(SAFE_GLOBALS):
                    content = torch.load(file, map_location="cpu", weights_only=True)
            else:
                content = np.load(file, allow_pickle=False)
            if isinstance(content, Mapping):
                return {name: _as_array(array) for name, array in content.items()}
            return _as_array(content)
    except pickle.UnpicklingError as error:
        # Not torch's own message: it suggests weights_only=False, which would run any code in the file.
        raise ValueError(
            f"{path} is not a file of torch, or holds more than arrays of whole numbers"
        ) from error
    except Exception as error:  # zipfile, numpy and torch raise a dozen types for a damaged file
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file could not be opened, so its content is not the cause
        reason = str(error).partition("\n")[0] or "it is empty"
        if isinstance(error, zipfile.BadZipFile):  # its message may quote raw bytes
            reason = "it is damaged"
        raise ValueError(f"{path} cannot be read: {reason}") from error
