"""Writes files that mean harm, for the tests of all that reads files from elsewhere."""

import copy
import hashlib
import io
import os
import re
import zipfile

import torch

from sam.training.checkpoint import FORMAT

# Nine lines that stand for a billion values.
ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


class Code:
    """Once unpickled, it has made a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class Filled:
    """Once unpickled, so many bytes of zeros."""

    def __init__(self, num_bytes):
        self.num_bytes = num_bytes

    def __reduce__(self):
        return bytearray, (self.num_bytes,)


def add_digest(path):
    """End a checkpoint with its digest, as the trainer does: whoever writes a file can do that, too."""
    data = path.read_bytes()
    path.write_bytes(data + hashlib.sha256(data).digest())


def write_zip(path, claimed):
    """Write a zip file whose table of contents claims sizes that its few bytes do not have.

    claimed: bytes, by the names of its entries.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name in claimed:
            archive.writestr(name, b"\0" * 100)
        for entry in archive.infolist():
            entry.file_size = claimed[entry.filename]
    path.write_bytes(content.getvalue())


def compressed(path, mebibytes):
    """A checkpoint with a tensor of so many zeros, its records compressed: torch unpacks such, too."""
    plain = saved({"format": FORMAT, "model": {"weight": torch.zeros(mebibytes * 2**18)}})
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


def overlapping(path, mebibytes):
    """A checkpoint whose table of contents names the same megabyte many times, once for each tensor."""
    tensors = {str(number): torch.zeros(2**18) for number in range(mebibytes)}
    plain = saved({"format": FORMAT, "model": tensors})
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        first = None
        for entry in old.infolist():
            if not re.search(r"/data/\d+$", entry.filename):
                new.writestr(entry.filename, old.read(entry))
            elif first is None:
                new.writestr(entry.filename, old.read(entry))
                first = new.getinfo(entry.filename)
            else:
                again = copy.copy(first)
                again.filename = entry.filename
                new.filelist.append(again)


def saved(state):
    """Return a file of torch in memory."""
    file = io.BytesIO()
    torch.save(state, file)
    return file


def filled(path, mebibytes):
    """A checkpoint whose pickle calls for so many zeros."""
    torch.save({"format": FORMAT, "model": Filled(mebibytes * 2**20)}, path)


def old_and_filled(path, mebibytes):
    """The same as torch 1.5 wrote it, which is no zip file."""
    state = {"format": FORMAT, "model": Filled(mebibytes * 2**20)}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def expanded(path, mebibytes):
    """A checkpoint with a tensor of many times the same number."""
    torch.save({"format": FORMAT, "model": {"weight": torch.zeros(1).expand(mebibytes * 2**18)}}, path)


def laughing(path, mebibytes):
    """A checkpoint with a list of ten times a list of ten times a list ..., up to a billion in all."""
    laughs = ["ha"] * 10
    for _ in range(6 if mebibytes < 100 else 8):
        laughs = [laughs] * 10
    torch.save({"format": FORMAT, "model": laughs}, path)


TORCH_BOMBS = {
    function.__name__: function
    for function in (compressed, overlapping, filled, old_and_filled, expanded, laughing)
}
