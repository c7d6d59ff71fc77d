"""A recorder for the CPU: what a CUDA graph does, as a list of operator calls on fixed tensors.

Recording leaves no trace in the tensors that existed before. A replay runs no Python of the recorded work: it
makes the same operator calls on the same memory. So it shows what would go wrong on a GPU: a tensor that is a
new one at each update, a number of the host that changes, or a host that waits for the device.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}


class Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []
        self.made = set()  # addresses of the storages that the work made
        self.before = {}  # copies of all other storages that it used
        self.has_failed = False
        self.lacks_memory_for = None  # the name of an operator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.has_failed or func.overloadpacket.__name__ in WAITS:
            self.has_failed = True  # nothing can be recorded after a failure, as on a GPU
            raise RuntimeError(f"the host waits for {func}\nand more lines")
        if func.overloadpacket.__name__ == self.lacks_memory_for:
            self.lacks_memory_for = None  # the next call may find memory, and is recorded
            raise torch.OutOfMemoryError("CUDA out of memory")
        given = tensors(args, kwargs)
        for tensor in given:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.made | self.before.keys():
                self.before[storage.data_ptr()] = (storage, storage.clone())
        results = func(*args, **kwargs)
        own = {tensor.untyped_storage().data_ptr() for tensor in given}
        new = [t for t in tensors(results) if t.untyped_storage().data_ptr() not in own]
        self.made |= {tensor.untyped_storage().data_ptr() for tensor in new}
        self.calls.append((func, args, kwargs, results))
        return results

    def undo(self):
        for storage, copy in self.before.values():
            storage.copy_(copy)

    def replay(self):
        for func, args, kwargs, before in self.calls:
            results = func(*args, **kwargs)
            for old, new in zip(tensors(before), tensors(results)):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def tensors(*values):
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, torch.Tensor)]


class TapeRecorder:
    def __init__(self, lacks_memory_for=None):
        self.tapes = []
        self.lacks_memory_for = lacks_memory_for

    def prepare(self, work):
        return work()

    def record(self, work):
        tape = Tape()
        tape.lacks_memory_for = self.lacks_memory_for
        try:
            with tape:
                result = work()
        finally:
            tape.undo()
        self.tapes.append(tape)
        return result, torch.no_grad()(tape.replay)
