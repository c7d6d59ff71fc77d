"""From a config to the base optimizer: its class and its arguments."""

from typing import Any

import torch

from sam.config.optimizer import OptimizerConfig

Base = tuple[type[torch.optim.Optimizer], dict[str, Any]]


def base_optimizer(chosen: OptimizerConfig) -> Base:
    """Return the class and the arguments of the base optimizer.

    rmsprop is the RMSProp of the SAM paper's released code, which follows TensorFlow's: v starts at 1,
    v <- 0.9 v + 0.1 g^2, b <- momentum b + g / sqrt(v + 0.001), w <- w - lr b. torch's RMSprop starts v at 0
    and adds its constant outside the root.

    Args:
        chosen: The optimizer section of the config.

    Returns:
        The class, and its arguments without the parameters.
    """
    common = {
        "lr": chosen.lr,
        "weight_decay": 0.0 if chosen.weight_decay_in == "loss" else chosen.weight_decay,
    }
    if chosen.base == "adamw":
        return torch.optim.AdamW, {**common, "betas": (chosen.momentum, 0.999)}
    if chosen.base == "rmsprop":
        from timm.optim.rmsprop_tf import RMSpropTF  # the import of timm takes half a second

        return RMSpropTF, {
            **common,
            "momentum": chosen.momentum,
            "alpha": 0.9,
            "eps": 0.001,
            "lr_in_momentum": False,
        }
    return torch.optim.SGD, {**common, "momentum": chosen.momentum, "nesterov": chosen.nesterov}
