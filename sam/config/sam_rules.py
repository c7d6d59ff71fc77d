"""The rules of SAM's family: their names in tables, and the keys of the optimizer that each of them reads."""

from typing import NamedTuple


class SAMRuleKeys(NamedTuple):
    """What the config says about one rule of SAM's family.

    Attributes:
        label: Its name in tables.
        keys: The keys with sam_only=True that it reads, without KEYS_OF_ALL_RULES.
    """

    label: str
    keys: tuple[str, ...]


# Allowed with every rule. Recipes set the last two, also for rules with one pass, which do not read them.
KEYS_OF_ALL_RULES = ("rule", "rho", "true_gradient", "replay")
# Of the rules that make the two passes of SAM.
TWO_PASS_KEYS = (
    "adaptive",
    "adaptive_for",
    "sync_ascent",
    "perturb",
    "ascent_fraction",
    "interval",
    "start",
    "stop",
)
# Their eps depends on the scale of the gradient.
RULES_WITHOUT_LOSS_SCALE = ("f_sam", "vasso", "le_sam")
# By the value of optimizer.rule. sam/build/rules.py makes the rules.
SAM_RULES = {
    "sam": SAMRuleKeys(
        "SAM",
        (*TWO_PASS_KEYS, "p", "direction", "ascent_steps", "ascent_step_size", "second_order", "reuse"),
    ),
    "msam": SAMRuleKeys("MSAM", ()),
    "s2_sam": SAMRuleKeys("S2-SAM", ()),
    "f_sam": SAMRuleKeys("F-SAM", (*TWO_PASS_KEYS, "p", "f_sam_sigma", "f_sam_decay")),
    "vasso": SAMRuleKeys("VaSSO", (*TWO_PASS_KEYS, "p", "vasso_theta")),
    "le_sam": SAMRuleKeys("LE-SAM", (*TWO_PASS_KEYS, "le_sam_sigma", "le_sam_warm_up", "le_sam_fall")),
    "functional_sam": SAMRuleKeys(
        "Functional-SAM", ("adaptive", "sync_ascent", "perturb", "interval", "start", "stop")
    ),
    "stable_sam": SAMRuleKeys("Stable SAM", ("adaptive", "interval", "start", "stop")),
}
