"""A population of trained runs: their sharpness, generalisation gaps and differing hyperparameters."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sam.record.analyses import Analysis
from sam.record.reader import Run
from sam.record.values import RULES, number, values_of
from sam.report.groups import Group
from sam.report.measured import Measured, final_rises, gather, made_alike
from sam.report.settings import setting_of

METHOD = "optimizer.name"
MIN_RUNS = 4
# Number of classes of the datasets with dataset.label_noise, by reader.
NUM_CLASSES = {"fashion_mnist_mini": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10}


@dataclass(frozen=True)
class Population:
    """Runs on one dataset, like one task of PGDL.

    Attributes:
        dataset: Name of the dataset.
        first: One of the analyses; all are comparable.
        is_sam: For each run, whether it was trained with SAM.
        conditions: For each run, its condition; runs of one condition differ only in the seed.
        gaps: For each run, the generalisation gap.
        has_noise: Whether a run was trained on noisy labels; its gap then uses an expected test error.
        ascent_steps: Number of ascent steps of the sharpness.
        sharpness: For each m that all runs have, the rise of the loss of each run.
        hyperparameters: For each differing hyperparameter, the value of each run.
    """

    dataset: str
    first: Analysis
    is_sam: list[bool]
    conditions: list[Hashable]
    gaps: list[float]
    has_noise: bool
    ascent_steps: int
    sharpness: dict[int, list[float]]
    hyperparameters: dict[str, list[Hashable]]


def populations(groups: Sequence[Group]) -> list[Population]:
    """Collect, for each dataset, the runs with a sharpness analysis after the last epoch and a gap.

    Args:
        groups: Conditions.

    Raises:
        ValueError: If no dataset has four such runs.
    """
    by_dataset: dict[str, list[Measured]] = defaultdict(list)
    for one in gather(groups, "sharpness"):
        by_dataset[str(one.group.setting.fields["dataset.name"])].append(one)
    found = [_population(name, made_alike(members)) for name, members in by_dataset.items()]
    large = [population for population in found if population is not None]
    if not large:
        raise ValueError(
            f"no dataset has {MIN_RUNS} complete runs with a sharpness analysis after the last epoch, a "
            "common m and a generalisation gap"
        )
    return large


def generalisation_gap(run: Run) -> float | None:
    """Return the test error of a run minus its training error, in percentage points.

    Both errors refer to labels from the distribution that the run was trained on: with dataset.label_noise,
    the test error is the expected error against test labels with the same noise. For other noisy labels, the
    noise depends on the image or its class, and there is no gap. The training error is the mean over the last
    epoch, with augmentation, as the run recorded it.

    Args:
        run: A complete run.

    Returns:
        The gap; None if a number for it is missing.
    """
    result: dict[str, Any] = run.result or {}
    test, train = number(result.get("test_error_pct")), number(result.get("train_error_pct"))
    if test is not None and not setting_of(run.config).has_clean_labels:
        test = _error_with_noise(test, values_of(run.config))
    return None if test is None or train is None else test - train


def _error_with_noise(error_pct: float, values: Mapping[str, Any]) -> float | None:
    """Return the expected error of the same predictions against labels with the noise of a config.

    A label stays correct with probability 1 - noise, and becomes each of the K - 1 other classes with
    probability noise / (K - 1). If it is drawn over all classes, these are 1 - noise + noise / K and
    noise / K.

    Args:
        error_pct: Error against the true labels, in percent.
        values: The values of the config by dotted key.

    Returns:
        The expected error in percent; None if the labels have another source, the noise is asymmetric, or K
        is not known.
    """
    noise = float(values["dataset.label_noise"])
    num_classes: int | None = values["dataset.num_classes"]
    num_classes = num_classes or NUM_CLASSES.get(values["dataset.reader"])
    from_elsewhere = any(values[key] for key in ("dataset.label_file", "dataset.relabel_from"))
    depends_on_class = values["dataset.label_noise_kind"] == "asymmetric"
    if from_elsewhere or depends_on_class or num_classes is None:
        return None
    over_all = values["dataset.label_noise_over"] == "all_classes"
    to_each = noise / (num_classes if over_all else num_classes - 1)
    stays = 1 - noise + (to_each if over_all else 0)
    error = error_pct / 100
    return 100 * (1 - (1 - error) * stays - error * to_each)


def hyperparameters(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Hashable]]:
    """Return the dotted keys that differ in a population, with the value of each run.

    The seed and keys that decide no numbers are left out. Keys of SAM count as missing for SGD. If several
    keys divide the runs in the same way, such as name and depth of a model, only the first is returned.

    Args:
        configs: Resolved configs, as nested dictionaries.
    """
    tables = [_keys_of(config) for config in configs]
    found: dict[str, list[Hashable]] = {}
    known: set[tuple[int, ...]] = set()
    # Every key of SAM divides SGD from SAM; the optimizer's name comes first, as the clearest.
    names = sorted({name for table in tables for name in table}, key=lambda name: (name != METHOD, name))
    for name in names:
        values = [str(table.get(name)) for table in tables]
        # Two keys with a one-to-one relation between their values have equal partitions.
        partition = tuple(values.index(value) for value in values)
        if len(set(values)) > 1 and partition not in known:
            known.add(partition)
            found[name] = list(values)
    return found


def _population(dataset: str, members: Sequence[Measured]) -> Population | None:
    runs, rows, groups = [], [], []
    ascent_steps, found = final_rises([_at_end(one) for one in members])
    for one, by_seed in zip(members, found, strict=True):
        of_seed = {run.result["seed"]: run for run in one.group.complete if run.result}
        for seed, by_m in by_seed.items():
            if (value := generalisation_gap(of_seed[seed])) is not None:
                runs.append((of_seed[seed], value))
                rows.append({m: rise.loss for m, rise in by_m.items()})
                groups.append(one.group)
    shared = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    if len(runs) < MIN_RUNS or not shared:
        return None
    return Population(
        dataset,
        members[0].analyses[0],
        [group.is_sam for group in groups],
        [group.key for group in groups],
        [value for _, value in runs],
        not all(group.setting.has_clean_labels for group in groups),
        ascent_steps,
        {m: [row[m] for row in rows] for m in shared},
        hyperparameters([run.config for run, _ in runs]),
    )


def _at_end(one: Measured) -> Measured:
    """Return the seeds of a condition that were analysed after their last epoch."""
    epochs = one.group.config["epochs"]
    ended = {seed: made for seed, made in one.by_seed.items() if any(look.epoch == epochs for look in made)}
    return Measured(one.group, ended)


def _keys_of(config: Mapping[str, Any]) -> dict[str, Any]:
    values = values_of(config)
    names = [METHOD]
    if values[METHOD] == "sam":
        names += [name for name, rules in RULES.items() if rules.get("sam_only")]
    return {**setting_of(config).fields, **{name: values[name] for name in names}}
