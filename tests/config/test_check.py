"""Tests of sam/config/check.py.

Longer than 300 lines, since it is mostly the table of all faults: key, value and what is allowed.
"""

import re
from typing import Any

import pytest

from sam.config.check import check
from sam.config.schema import EvaluateConfig, TrainConfig, config_items
from sam.system.errors import ConfigError
from tests.conftest import changed

NAME = "a name of letters, digits, '_', '-' and '.', since it becomes part of a path"
READERS = (
    "one of fashion_mnist_mini, fashion_mnist, cifar10, cifar100, svhn, synthetic, image_folder, "
    "fgvc_aircraft, flowers102, oxford_iiit_pet, stanford_cars, food101"
)
SEED = "a number >= 0 and <= 2147483647"
# Key, a value that is not allowed, what is said to be allowed.
FAULTS: list[tuple[str, Any, str]] = [
    ("analysis.name", "fisher", "one of none, sharpness, hessian, landscape, second_order"),
    ("analysis.every", 0, "a number >= 1"),
    ("analysis.split", "validation", "one of train, test"),
    ("analysis.num_images", 0, "a number >= 1"),
    ("analysis.chunk_size", 0, "a number >= 1"),
    ("analysis.statistics", "running", "one of evaluation, batch"),
    ("analysis.dtype", "bfloat16", "one of float32, float64"),
    ("analysis.seed", -1, SEED),
    ("analysis.rho", -0.1, "a number >= 0"),
    ("analysis.m", [], "a list of at least one value, such as [1,4]"),
    ("analysis.m", [1, 0], "a number >= 1"),
    ("analysis.ascent_steps", [0], "a number >= 1"),
    ("analysis.ascent_step_size", 0.0, "a number > 0"),
    ("analysis.top", 0, "a number >= 1"),
    ("analysis.steps", 1, "a number >= 2"),
    ("analysis.probes", 0, "a number >= 1"),
    ("analysis.directions", "gradient", "one of random, eigenvectors, run, trajectory"),
    ("analysis.dimensions", 3, "a number >= 1 and <= 2"),
    ("analysis.span", 0.0, "a number > 0"),
    ("analysis.points", 2, "a number >= 3 and <= 1001"),
    ("analysis.num_batches", 0, "a number >= 1"),
    ("dataset.name", "a/b", NAME),
    ("dataset.name", "", NAME),
    ("dataset.name", "..", NAME),
    ("dataset.name", "-x", NAME),
    ("dataset.name", "cats\n", NAME),
    ("dataset.reader", "mnist", READERS),
    ("dataset.num_train", 0, "a number >= 1"),
    ("dataset.num_test", 0, "a number >= 1"),
    ("dataset.validation", "first", "one of none, last, random"),
    ("dataset.repeats", 0, "a number >= 1"),
    ("dataset.label_noise", -0.1, "a number >= 0 and < 1"),
    ("dataset.label_noise", 1.0, "a number >= 0 and < 1"),
    ("dataset.label_noise", float("nan"), "a finite number"),
    ("model.batch_norm_decay", 1.0, "a number >= 0 and < 1"),
    ("logger", "mlflow", "one of tensorboard, trackio, wandb"),
    ("optimizer.adaptive_for", "weights", "one of all, not_biases, kernels"),
    ("optimizer.base", "adam", "one of sgd, adamw, rmsprop"),
    ("optimizer.warmup_epochs", -1.0, "a number >= 0"),
    ("model.dropout", -0.1, "a number >= 0 and < 1"),
    ("model.dropout", 1.0, "a number >= 0 and < 1"),
    ("dataset.label_noise_kind", "pairs", "one of symmetric, asymmetric"),
    ("dataset.subset_seed", "3", "one of fixed, run"),
    ("dataset.label_noise_over", "classes", "one of other_classes, all_classes"),
    ("dataset.image_size", 7, "a number >= 8 and <= 1024"),
    ("dataset.image_size", 1025, "a number >= 8 and <= 1024"),
    ("dataset.resize_size", 7, "a number >= 8 and <= 2048"),
    ("dataset.interpolation", "nearest", "one of bilinear, bicubic"),
    ("dataset.num_classes", 1, "a number >= 2"),
    ("model.name", "a b", NAME),
    (
        "model.architecture",
        "vgg",
        "one of cifar_resnet, wide_cifar_resnet, wide_resnet, shake_shake, pyramidnet, timm",
    ),
    ("model.depth", 2, "a number >= 8 and <= 2000"),
    ("model.width", 0, "a number >= 1"),
    ("model.shortcut", "none", "one of pool, conv"),
    ("model.alpha", 0, "a number >= 1"),
    ("model.init", "he", "one of released_code, torch"),
    ("model.init_seed", -1, SEED),
    ("model.input_size", 7, "a number >= 8 and <= 2048"),
    ("augmentation.name", "a:b", NAME),
    ("augmentation.crop_padding", -1, "a number >= 0"),
    ("augmentation.padding", "constant", "one of reflect, zero"),
    ("augmentation.cutout_size", -1, "a number >= 0"),
    ("augmentation.cutout_scope", "epoch", "one of image, batch"),
    ("augmentation.auto_augment", "cifar100", "one of none, cifar10, svhn, imagenet, cifar10_released_code"),
    ("augmentation.mixup_alpha", -1.0, "a number >= 0"),
    ("augmentation.mixup_alpha", float("inf"), "a finite number"),
    ("optimizer.name", "adam", "one of sgd, sam"),
    ("optimizer.rule", "asam", "one of sam, msam, s2_sam, f_sam, vasso, le_sam, functional_sam, stable_sam"),
    ("optimizer.lr", 0.0, "a number > 0"),
    ("optimizer.momentum", 1.0, "a number >= 0 and < 1"),
    ("optimizer.momentum", -0.1, "a number >= 0 and < 1"),
    ("optimizer.weight_decay", -1e-9, "a number >= 0"),
    ("optimizer.weight_decay_in", "gradient", "one of optimizer, loss"),
    ("optimizer.clip_norm", 0.0, "a number > 0"),
    ("optimizer.rho", -0.05, "a number >= 0"),
    ("optimizer.rho", float("inf"), "a finite number"),
    ("optimizer.p", 1.0, "a number > 1"),
    ("optimizer.p", float("nan"), "a number > 1, or inf"),
    ("optimizer.direction", "up", "one of gradient, random"),
    ("optimizer.ascent_steps", 0, "a number >= 1"),
    ("optimizer.ascent_step_size", 0.0, "a number > 0"),
    ("optimizer.perturb", "bn", "one of all, norm"),
    ("optimizer.ascent_fraction", 0.0, "a number > 0 and <= 1"),
    ("optimizer.ascent_fraction", 1.1, "a number > 0 and <= 1"),
    ("optimizer.interval", 0, "a number >= 1"),
    ("optimizer.reuse", -0.1, "a number >= 0"),
    ("optimizer.start", -0.1, "a number >= 0 and < 1"),
    ("optimizer.start", 1.0, "a number >= 0 and < 1"),
    ("optimizer.stop", 0.0, "a number > 0 and <= 1"),
    ("optimizer.stop", 1.1, "a number > 0 and <= 1"),
    ("optimizer.f_sam_sigma", -0.1, "a number >= 0"),
    ("optimizer.f_sam_decay", 1.0, "a number >= 0 and < 1"),
    ("optimizer.vasso_theta", 0.0, "a number > 0 and <= 1"),
    ("optimizer.le_sam_sigma", -0.1, "a number >= 0"),
    ("optimizer.le_sam_warm_up", 1.1, "a number >= 0 and <= 1"),
    ("optimizer.le_sam_fall", 1.1, "a number >= 0 and <= 1"),
    ("runtime.processes", 0, "a number >= 1 and <= 1024"),
    ("runtime.parallel", "tp", "one of ddp, fsdp"),
    ("runtime.workers", -1, "a number >= 0 and <= 1024"),
    ("runtime.precision", "fp8", "one of fp32, tf32, bf16, fp16"),
    ("augmentation.auto_augment_draws", "epoch", "one of image, batch"),
    ("runtime.graph", "always", "one of auto, true, false"),
    ("runtime.threads", 0, "a number >= 1 and <= 1024"),
    ("runtime.checkpoint_minutes", 0.0, "a number > 0"),
    ("runtime.keep_weights_every", 0, "a number >= 1"),
    ("runtime.timeout_minutes", 0.0, "a number > 0 and <= 10080"),
    ("runtime.timeout_minutes", 10081.0, "a number > 0 and <= 10080"),
    ("epochs", -1, "a number >= 0"),
    ("batch_size", 0, "a number >= 1"),
    ("m", 0, "a number >= 1"),
    ("label_smoothing", -0.1, "a number >= 0 and < 1"),
    ("label_smoothing", 1.0, "a number >= 0 and < 1"),
    ("ema_decay", 0.0, "a number > 0 and < 1"),
    ("ema_decay", 1.0, "a number > 0 and < 1"),
    ("seed", -1, SEED),
    ("seed", 2**31, SEED),
]
CIFAR = {"dataset.reader": "cifar100"}
SYNTHETIC = {
    "dataset.reader": "synthetic",
    "dataset.num_train": 256,
    "dataset.num_test": 64,
    "dataset.num_classes": 4,
    "dataset.image_size": 8,
}
# The outermost values that are allowed.
ALLOWED: list[tuple[str, Any]] = [
    ("dataset.name", "_CIFAR-10.v2"),
    ("dataset.num_train", 128),
    ("dataset.num_test", 1),
    ("dataset.label_noise", 0.0),
    ("dataset.label_noise", 0.999),
    ("model.width", 1),
    ("augmentation.padding", "zero"),
    ("augmentation.crop_padding", 0),
    ("augmentation.cutout_size", 0),
    ("optimizer.name", "sgd"),
    ("optimizer.lr", 1e-12),
    ("optimizer.weight_decay", 0.0),
    ("optimizer.clip_norm", 1e-12),
    ("optimizer.clip_norm", None),
    ("optimizer.p", 1.01),
    ("optimizer.p", float("inf")),
    ("optimizer.ascent_fraction", 1 / 128),
    ("optimizer.start", 0.999),
    ("optimizer.stop", 1e-6),
    ("runtime.processes", 1),
    ("runtime.workers", 0),
    ("optimizer.rho", 0.0),
    ("optimizer.momentum", 0.999),
    ("runtime.precision", "bf16"),
    ("runtime.threads", 1),
    ("runtime.checkpoint_minutes", 1e-3),
    ("runtime.timeout_minutes", 10080.0),
    ("epochs", 0),
    ("batch_size", 1),
    ("m", 1),
    ("m", 128),
    ("label_smoothing", 0.0),
    ("seed", 0),
    ("seed", 2**31 - 1),
]


def faults_of(config: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(config)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("key", "value", "allowed"), FAULTS)
def test_check_tells_key_value_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)^{re.escape(f'{key}={value}: allowed is {allowed}')}$"):
        check(changed({key: value}))


@pytest.mark.parametrize(("key", "value"), ALLOWED)
def test_check_allows_the_outermost_values(key: str, value: Any) -> None:
    check(changed({key: value}))


@pytest.mark.parametrize("size", [8, 1024])
def test_check_allows_the_outermost_image_sizes(size: int) -> None:
    sizes = {"dataset.num_train": 128, "dataset.num_test": 1, "dataset.num_classes": 2}
    check(changed({"dataset.reader": "synthetic", "dataset.image_size": size, **sizes}))


def test_check_tests_above_cover_every_key_with_a_rule() -> None:
    ruled = {
        key for key, _, field in config_items(TrainConfig()) if set(field.metadata) - {"science", "sam_only"}
    }
    assert {key for key, _, _ in FAULTS} == ruled


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"analysis.adaptive": True, "analysis.ascent_steps": [1, 2]},
            "analysis.adaptive=true analysis.ascent_steps=[1]",
        ),
        (
            {"analysis.name": "landscape", "analysis.directions": "run"},
            "analysis.directions=run analysis.other=None",
        ),
        (
            {"analysis.name": "landscape", "analysis.other": "outputs/a"},
            "analysis.directions=random analysis.other=outputs/a analysis.directions=run",
        ),
        ({"analysis.name": "landscape", "analysis.points": 24}, "analysis.points=24 odd"),
        (
            {"analysis.name": "landscape", "analysis.directions": "eigenvectors"},
            "analysis.directions=eigenvectors evaluate.py",
        ),
        (
            {"analysis.name": "landscape", "analysis.directions": "trajectory"},
            "analysis.directions=trajectory runtime.keep_weights_every=1 evaluate.py",
        ),
        (
            {"analysis.name": "hessian", "runtime.parallel": "fsdp", "optimizer.sync_ascent": True},
            "analysis=hessian runtime.parallel=fsdp evaluate.py run=",
        ),
        (
            {"ema_decay": 0.9, "runtime.parallel": "fsdp", "optimizer.name": "sgd"},
            "ema_decay=0.9 runtime.parallel=fsdp runtime.parallel=ddp ema_decay=null",
        ),
        ({"m": 48}, "m=48 batch_size=128 m=null"),
        ({"m": 256}, "m=256 batch_size=128 m=null"),
        ({"model.depth": 28}, "model.depth=28 6n+2"),
        ({"model.architecture": "wide_resnet", "model.depth": 20}, "model.depth=20 6n+4"),
        ({"optimizer.momentum": 0.0}, "optimizer.nesterov=true optimizer.momentum optimizer.nesterov=false"),
        (
            {"runtime.precision": "tf32", "runtime.device": "cpu"},
            "runtime.precision=tf32 runtime.device=cpu fp32",
        ),
        (
            {"runtime.precision": "tf32", "runtime.device": "mps"},
            "runtime.precision=tf32 runtime.device=mps fp32",
        ),
        ({"dataset.num_train": 127}, "dataset.num_train=127 batch_size=128"),
        ({"dataset.reader": "cifar10", "dataset.num_classes": 10}, "dataset.num_classes cifar10 null"),
        (
            {"dataset.reader": "image_folder", "dataset.image_size": 8, "dataset.num_classes": 10},
            "dataset.num_classes image_folder null",
        ),
        ({"model.architecture": "pyramidnet", "model.depth": 12}, "model.depth=12 9n+2"),
        ({"model.architecture": "shake_shake", "model.width": 3}, "model.width=3 even"),
        ({"model.alpha": 84}, "model.alpha cifar_resnet"),
        ({"outputs": ""}, "outputs empty"),
        ({"dataset.reader": "image_folder"}, "dataset.image_size=null image_folder number"),
        ({"dataset.root": ""}, "dataset.root empty"),
        ({"dataset.reader": "flowers102"}, "dataset.image_size=null flowers102 number"),
        (
            {"dataset.reader": "food101", "dataset.image_size": 224, "dataset.resize_size": 200},
            "dataset.resize_size=200 dataset.image_size=224",
        ),
        (
            {"dataset.reader": "food101", "dataset.image_size": 224, "dataset.validation": "last"},
            "dataset.validation=last dataset.validation=random",
        ),
        (
            {"dataset.label_noise": 0.4, "dataset.relabel_from": "x"},
            "dataset.label_noise=0.4 dataset.relabel_from=x",
        ),
        ({"dataset.reader": "cifar10", "dataset.resize_size": 40}, "dataset.resize_size cifar10"),
        ({"dataset.reader": "cifar10", "dataset.in_memory": False}, "dataset.in_memory cifar10"),
        ({"dataset.extra": False}, "dataset.extra fashion_mnist_mini"),
        ({"dataset.verify": False}, "dataset.verify fashion_mnist_mini"),
        (
            {"dataset.verify": False, "dataset.reader": "flowers102", "dataset.image_size": 32},
            "dataset.verify flowers102",
        ),
        (
            {"dataset.verify": False, "dataset.reader": "cifar100", "dataset.label_file": "x.npy"},
            "dataset.label_file=x.npy dataset.verify=false dataset.label_noise",
        ),
        ({"dataset.label_noise_over": "all_classes"}, "dataset.label_noise_over=all_classes > 0"),
        ({"model.batch_norm_decay": 0.99}, "model.batch_norm_decay cifar_resnet"),
        (
            {
                "model.architecture": "timm",
                "model.timm_name": "resnet50",
                "model.weights": "hub",
                "model.freeze_statistics": True,
                "model.batch_norm_decay": 0.99,
            },
            "model.batch_norm_decay=0.99 model.freeze_statistics=true",
        ),
        ({"model.dropout": 0.3}, "model.dropout cifar_resnet"),
        ({"optimizer.adaptive_for": "kernels"}, "optimizer.adaptive_for=kernels optimizer.adaptive=true"),
        (
            {
                "optimizer.adaptive": True,
                "optimizer.adaptive_for": "kernels",
                "optimizer.perturb": "norm",
            },
            "optimizer.adaptive_for=kernels optimizer.perturb=norm optimizer.adaptive_for=not_biases",
        ),
        ({"optimizer.warmup_epochs": 20.0}, "optimizer.warmup_epochs=20 epochs=20 raise"),
        ({"dataset.label_noise_kind": "asymmetric", **CIFAR}, "dataset.label_noise_kind=asymmetric > 0"),
        ({"dataset.subset_seed": "run", **CIFAR}, "dataset.subset_seed=run dataset.num_train=null"),
        ({"dataset.subset_seed": "run", **SYNTHETIC}, "dataset.subset_seed=run synthetic leave"),
        (
            {"dataset.subset_seed": "run", "dataset.num_train": 500, "dataset.validation": "random", **CIFAR},
            "dataset.subset_seed=run dataset.validation=random",
        ),
        (
            {"dataset.label_noise_kind": "asymmetric", "dataset.label_noise": 0.4, "dataset.reader": "svhn"},
            "dataset.label_noise_kind=asymmetric cifar10 cifar100 svhn dataset.label_file",
        ),
        (
            {
                "dataset.label_noise_kind": "asymmetric",
                "dataset.label_noise": 0.4,
                "dataset.label_noise_over": "all_classes",
                **CIFAR,
            },
            "dataset.label_noise_over=all_classes dataset.label_noise_kind=symmetric",
        ),
        ({"optimizer.ascent_step_size": 0.5}, "optimizer.ascent_step_size=0.5 optimizer.ascent_steps"),
        ({"dataset.label_name": "worse_label"}, "dataset.label_name=worse_label dataset.label_file=PATH"),
        ({"model.architecture": "timm"}, "model.timm_name=null model.timm_name=resnet50"),
        (
            {
                "model.architecture": "timm",
                "model.timm_name": "resnet50",
                "model.freeze_statistics": True,
            },
            "model.freeze_statistics=true model.weights",
        ),
        ({"model.weights": "hub"}, "model.weights cifar_resnet"),
        (
            {"model.architecture": "timm", "model.timm_name": "resnet50", "model.init": "torch"},
            "model.init timm",
        ),
        ({"augmentation.inception_crop": True}, "augmentation.inception_crop=true dataset.in_memory=false"),
        ({"optimizer.p": 3.0, "optimizer.adaptive": True}, "optimizer.adaptive=true optimizer.p=3"),
        (
            {"optimizer.ascent_steps": 2, "optimizer.second_order": True, "optimizer.direction": "random"},
            "optimizer.direction=random optimizer.ascent_steps=2 optimizer.second_order=true",
        ),
        (
            {"optimizer.second_order": True, "runtime.precision": "bf16"},
            "optimizer.second_order=true runtime.precision=fp32 tf32 bf16",
        ),
        (
            {"optimizer.second_order": True, "runtime.compile": True},
            "optimizer.second_order=true runtime.compile=false",
        ),
        (
            {
                "optimizer.second_order": True,
                "runtime.grad_checkpointing": True,
                "model.architecture": "timm",
                "model.timm_name": "resnet50",
            },
            "optimizer.second_order=true runtime.grad_checkpointing=false",
        ),
        (
            {"optimizer.second_order": True, "runtime.processes": 2},
            "optimizer.second_order=true runtime.processes=2",
        ),
        *(
            (
                {"optimizer.second_order": True, f"optimizer.{key}": value},
                f"optimizer.second_order=true optimizer.{key}={value}",
            )
            for key, value in {
                "sync_ascent": True,
                "perturb": "norm",
                "ascent_fraction": 0.5,
                "interval": 2,
                "start": 0.1,
                "stop": 0.9,
            }.items()
        ),
        (
            {"optimizer.start": 0.5, "optimizer.stop": 0.5},
            "optimizer.start=0.5 optimizer.stop=0.5 optimizer=sgd",
        ),
        ({"optimizer.ascent_fraction": 0.1, "m": 8}, "optimizer.ascent_fraction=0.1 8 (m)"),
        (
            {"optimizer.sync_ascent": True, "optimizer.direction": "random"},
            "optimizer.sync_ascent=true optimizer.direction=gradient",
        ),
        ({"optimizer.reuse": 0.7}, "optimizer.reuse=0.7 optimizer.interval=5"),
        (
            {"optimizer.rule": "msam", "optimizer.momentum": 0.0, "optimizer.nesterov": False},
            "optimizer.momentum=0 optimizer.rule=msam optimizer.momentum > 0 optimizer.momentum=0.9",
        ),
        (
            {"optimizer.rule": "msam", "optimizer.adaptive": True},
            "optimizer.adaptive=true optimizer.rule=msam optimizer.rule=sam",
        ),
        (
            {"optimizer.rule": "stable_sam", "runtime.processes": 2},
            "optimizer.rule=stable_sam runtime.processes=2 runtime.processes=1",
        ),
        (
            {"optimizer.rule": "functional_sam", "optimizer.replay": False},
            "optimizer.rule=functional_sam optimizer.replay=true",
        ),
        (
            {"optimizer.rule": "s2_sam", "runtime.parallel": "fsdp"},
            "runtime.parallel=fsdp optimizer.rule=sam msam s2_sam runtime.parallel=ddp",
        ),
        (
            {"optimizer.reuse": 0.7, "optimizer.interval": 5, "optimizer.ascent_fraction": 0.5},
            "optimizer.reuse optimizer.ascent_fraction=1",
        ),
        (
            {"optimizer.reuse": 0.7, "optimizer.interval": 5, "optimizer.direction": "random"},
            "optimizer.reuse optimizer.direction=gradient",
        ),
        (
            {"optimizer.reuse": 0.7, "optimizer.interval": 5, "optimizer.base": "adamw"},
            "optimizer.reuse optimizer.base=sgd adamw optimizer.reuse=0",
        ),
        (
            {"optimizer.reuse": 0.7, "optimizer.interval": 5, "runtime.precision": "fp16"},
            "optimizer.reuse runtime.precision=fp32 tf32 bf16 fp16",
        ),
        ({"runtime.parallel": "fsdp"}, "runtime.parallel=fsdp optimizer.sync_ascent=true"),
        (
            {"runtime.parallel": "fsdp", "optimizer.name": "sgd", "runtime.precision": "fp16"},
            "runtime.parallel=fsdp runtime.precision=fp32 tf32 bf16 fp16",
        ),
        (
            {"runtime.parallel": "fsdp", "optimizer.name": "sgd", "runtime.compile": True},
            "runtime.parallel=fsdp runtime.compile=true runtime.parallel=ddp",
        ),
        *(
            (
                {"runtime.parallel": "fsdp", "optimizer.sync_ascent": True, **variant},
                "runtime.parallel=fsdp optimizer.p=2 optimizer.reuse=0 runtime.parallel=ddp",
            )
            for variant in ({"optimizer.p": 3.0}, {"optimizer.reuse": 0.7, "optimizer.interval": 5})
        ),
        *(
            (
                {"optimizer.rule": rule, "runtime.precision": "fp16"},
                f"optimizer.rule={rule} runtime.precision=fp32 tf32 bf16 fp16",
            )
            for rule in ("f_sam", "vasso", "le_sam")
        ),
        *(
            (
                {"optimizer.rule": rule, "runtime.parallel": "fsdp", "optimizer.sync_ascent": True},
                f"runtime.parallel=fsdp optimizer.rule=sam le_sam {rule} runtime.parallel=ddp",
            )
            for rule in ("f_sam", "vasso")
        ),
        (
            {"optimizer.rule": "le_sam", "optimizer.le_sam_warm_up": 0.5, "optimizer.le_sam_fall": 0.4},
            "optimizer.le_sam_warm_up=0.5 optimizer.le_sam_fall=0.4",
        ),
        (
            {"optimizer.rule": "f_sam", "optimizer.vasso_theta": 0.2},
            "optimizer.vasso_theta=0.2 optimizer.rule=f_sam optimizer.rule=vasso",
        ),
        (
            {"optimizer.rule": "f_sam", "optimizer.ascent_steps": 2},
            "optimizer.ascent_steps=2 optimizer.rule=f_sam optimizer.rule=sam",
        ),
        (
            {"optimizer.rule": "le_sam", "optimizer.p": 3.0},
            "optimizer.p=3.0 optimizer.rule=le_sam optimizer.rule=sam f_sam vasso",
        ),
        ({"runtime.grad_checkpointing": True}, "runtime.grad_checkpointing=true cifar_resnet batch_size"),
    ],
)
def test_check_names_keys_that_clash_and_what_to_use(changes: dict[str, Any], words: str) -> None:
    [fault] = faults_of(changed(changes))
    assert [word for word in words.split() if word not in fault] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"m": 64},
        {"model.architecture": "wide_resnet", "model.depth": 28},
        {"optimizer.momentum": 0.0, "optimizer.nesterov": False},
        {"optimizer.momentum": 0.0, "optimizer.base": "rmsprop"},
        {"runtime.precision": "tf32", "runtime.device": "auto"},
        {"runtime.precision": "tf32", "runtime.device": "cuda:1"},
        {"runtime.precision": "bf16", "runtime.device": "cpu"},
        {"dataset.reader": "image_folder", "dataset.image_size": 64},
        {"dataset.num_train": 40, "dataset.repeats": 4},
        {"dataset.label_file": "x.npz", "dataset.label_name": "worse_label"},
        {"dataset.verify": False, "dataset.reader": "cifar100", "dataset.label_noise": 0.4},
        {"dataset.label_noise_kind": "asymmetric", "dataset.label_noise": 0.4, **CIFAR},
        {"dataset.subset_seed": "run", "dataset.num_train": 500, **CIFAR},
        {"model.shortcut": "conv"},
        {"model.architecture": "timm", "model.timm_name": "resnet50", "runtime.grad_checkpointing": True},
        {"optimizer.name": "sgd", "optimizer.p": 3.0, "optimizer.adaptive": True},
        {"optimizer.second_order": True, "runtime.precision": "tf32"},
        {"optimizer.second_order": True, "runtime.processes": 1},
        {"runtime.parallel": "fsdp", "optimizer.name": "sgd"},
        {"runtime.parallel": "fsdp", "optimizer.rule": "msam"},
        {"optimizer.rule": "msam", "optimizer.replay": False, "optimizer.true_gradient": False},
        {"runtime.parallel": "fsdp", "optimizer.sync_ascent": True, "runtime.precision": "bf16"},
        {"optimizer.rule": "f_sam", "optimizer.adaptive": True, "optimizer.start": 0.5},
        {"optimizer.rule": "vasso", "optimizer.p": 3.0, "runtime.precision": "bf16"},
        {"optimizer.rule": "le_sam", "runtime.parallel": "fsdp", "optimizer.sync_ascent": True},
        {"optimizer.name": "sgd", "optimizer.start": 0.5, "optimizer.stop": 0.5, "optimizer.reuse": 1.0},
    ],
)
def test_check_allows_keys_that_go_together(changes: dict[str, Any]) -> None:
    check(changed(changes))


def test_check_shows_all_faults_together() -> None:
    config = changed({"optimizer.lr": -1.0, "seed": -5, "m": 48, "dataset.root": ""})
    assert faults_of(config) == [
        "optimizer.lr=-1.0: allowed is a number > 0",
        "seed=-5: allowed is a number >= 0 and <= 2147483647",
        "m=48 does not divide batch_size=128; choose a divisor or m=null",
        "dataset.root is empty; name a folder",
    ]


def test_check_of_evaluate_config_knows_its_splits() -> None:
    check(EvaluateConfig(run="somewhere", split="train"))
    faults = faults_of(EvaluateConfig(run="somewhere", split="validation"))
    assert faults == ["split=validation: allowed is one of test, train, train_clean"]
