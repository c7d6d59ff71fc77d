"""The interface of a torch optimizer, for one around another whose groups and state it shares."""

from typing import Any

import torch
from torch.optim import Optimizer


class AroundOptimizer(Optimizer):
    """An optimizer whose parameter groups and state are those of its base optimizer, whoever changes them.

    torch's constructor is not called: it would make groups and a state of its own. __setstate__() does the
    rest.

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
        # A scheduler replaces step() on the instance by a wrapper, which cannot be pickled. A copy has no
        # hooks, like that of any torch optimizer.
        left_out = ("step", "_optimizer_")
        return {name: value for name, value in self.__dict__.items() if not name.startswith(left_out)}

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, with SAM's own state under "sam".

        The groups hold rho and adaptive. Between the two passes, "sam" includes the saved weights w.
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
        """Load the result of state_dict(), either that of a SAM or that of the base optimizer alone."""
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
