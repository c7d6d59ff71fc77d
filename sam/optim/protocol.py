"""The base class of an optimizer that wraps another torch optimizer and shares its groups and state."""

from typing import Any

import torch
from torch.optim import Optimizer


class OptimizerWrapper(Optimizer):
    """An optimizer that always has the parameter groups and the state of its base optimizer.

    This holds also after other code has replaced them, in either optimizer. torch's constructor is not
    called, because it would create separate groups and a separate state. __setstate__() sets all else that a
    torch optimizer needs, such as its hooks.

    Args:
        base_optimizer: The optimizer that has the groups and the state.
        defaults: Settings of new groups, in addition to those of the base optimizer. (Schedulers look into
            `defaults` for lr and momentum.)
    """

    def __init__(self, base_optimizer: Optimizer, defaults: dict[str, Any]) -> None:
        self.base_optimizer = base_optimizer
        self.__setstate__({"defaults": {**base_optimizer.defaults, **defaults}})

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups: those of the base optimizer."""
        return self.base_optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base_optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The state of each parameter: that of the base optimizer."""
        return self.base_optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base_optimizer.state = state

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler sets a wrapper of step() on the instance, which cannot be pickled. Hooks are left out
        # too: a copy of any torch optimizer has none.
        left_out = ("step", "_optimizer_")
        return {name: value for name, value in self.__dict__.items() if not name.startswith(left_out)}

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, with SAM's own state under "sam".

        The groups also hold rho, adaptive and perturbed. Between the two passes, "sam" includes the saved
        weights w; for a sharded weight, the part that this process holds.
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        state_dict = {**self.base_optimizer.state_dict(), "sam": self._own_state()}
        for change in self._optimizer_state_dict_post_hooks.values():
            changed = change(self, state_dict)
            state_dict = state_dict if changed is None else changed
        return state_dict

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of state_dict(), of a SAM or of the base optimizer alone."""
        state_dict = state_dict.copy()
        for change in self._optimizer_load_state_dict_pre_hooks.values():
            changed = change(self, state_dict)
            state_dict = state_dict if changed is None else changed
        self.base_optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != "sam"})
        self._load_own_state(state_dict.get("sam", {}))
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _own_state(self) -> dict[str, Any]:
        raise NotImplementedError

    def _load_own_state(self, own: dict[str, Any]) -> None:
        raise NotImplementedError
