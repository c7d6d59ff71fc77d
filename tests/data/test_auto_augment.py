"""Tests of sam/data/auto_augment.py and sam/data/published_policies.py."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from sam.data.auto_augment import NUM_DRAWS, AutoAugment
from sam.data.policies import POLICIES
from tests.devices import host_never_waits
from tests.reference.auto_augment import auto_augmented, difference

CPU, META = torch.device("cpu"), torch.device("meta")


def images(num_images: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return images of any range of values, the first of one value; uint8 [N, H, W, C]."""
    generator = np.random.default_rng(0)
    low, high = np.sort(generator.integers(0, 257, (2, num_images, 1, 1, shape[2])), axis=0)
    pixels = generator.integers(low, np.maximum(high, low + 1), (num_images, *shape))
    pixels[0] = 7
    return torch.from_numpy(pixels.astype(np.uint8))


def draws(num_images: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(NUM_DRAWS, num_images, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("policy", ["cifar10", "svhn", "imagenet"])
def test_published_pairs_are_those_of_torchvision(policy: str) -> None:
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies
    assert [[(*rest, level or 0) for *rest, level in pair] for pair in theirs] == [
        [tuple(operation) for operation in pair] for pair in POLICIES[policy].pairs
    ]


@pytest.mark.parametrize(
    ("shape", "num_images"), [((32, 32, 3), 500), ((32, 32, 1), 100), ((9, 5, 3), 200), ((2, 30, 1), 60)]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_images_are_those_of_pillow_with_the_same_draws_to_the_bit(policy, shape, num_images) -> None:
    pixels, drawn = images(num_images, shape), draws(num_images)
    before = pixels.clone()
    changed = AutoAugment(POLICIES[policy], shape, CPU)(pixels, drawn)
    assert torch.equal(pixels, before)
    for image, own, result in zip(pixels, drawn.T.tolist(), changed, strict=True):
        expected = auto_augmented(policy, Image.fromarray(image.squeeze(2).numpy()), own)
        assert np.array_equal(np.asarray(expected).reshape(shape), result.numpy())


def test_operations_are_drawn_with_the_shares_of_the_policy() -> None:
    # An image of one value shows a shear, rotation or translation by its grey pixels.
    policy, num_images = POLICIES["cifar10"], 10_000
    changed = AutoAugment(policy, (32, 32, 1), CPU)(
        torch.full((num_images, 32, 32, 1), 7, dtype=torch.uint8), draws(num_images)
    )
    is_moved = changed.flatten(1).amax(1) != changed.flatten(1).amin(1)
    kept = [np.prod([1 - share for name, share, _ in pair if name in policy.moves]) for pair in policy.pairs]
    share = 1 - float(np.mean(kept))
    assert abs(is_moved.double().mean() - share) < 4 * (share * (1 - share) / num_images) ** 0.5


@pytest.mark.parametrize(
    ("name", "level", "share", "largest"),
    [
        ("Invert", 0, 0, 0),
        ("Posterize", 7, 0, 0),
        ("Equalize", 0, 0, 0),
        ("Brightness", 7, 0, 0),
        ("TranslateX", 9, 0, 0),
        ("AutoContrast", 0, 15, 1),
        ("Color", 7, 50, 1),
        ("Contrast", 7, 50, 1),
        ("Sharpness", 7, 0.2, 1),
    ],
)
def test_functions_of_torchvision_for_tensors_differ_from_pillow_by_a_grey_level(
    name, level, share, largest
) -> None:
    found_share, found_largest = difference(name, level, images(40, (32, 32, 3)))
    assert found_share <= share
    assert found_largest <= largest


class Counted(TorchDispatchMode):
    """Counts the operators that work on the device, here the meta device; views do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple | list) else [result]
        self.number += any(part.device == META for part in results) and not function.is_view
        return result


@pytest.mark.parametrize("policy", POLICIES)
def test_host_never_waits_and_starts_few_operators_whatever_the_number_of_images(policy: str) -> None:
    # On the meta device, every operator fails that needs a value on the host.
    changes = AutoAugment(POLICIES[policy], (32, 32, 3), META)
    for num_images in (1, 64, 4096):
        pixels, drawn = torch.empty(num_images, 32, 32, 3, dtype=torch.uint8, device=META), draws(num_images)
        with Counted() as counted:
            assert changes(pixels, drawn).shape == pixels.shape
        assert counted.number <= (180 if policy == "cifar10_released_code" else 140)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", POLICIES)
def test_images_are_the_same_bits_and_the_host_does_not_wait_on_cuda(policy: str) -> None:
    pixels, drawn = images(2000, (32, 32, 3)), draws(2000)
    expected = AutoAugment(POLICIES[policy], (32, 32, 3), CPU)(pixels, drawn)
    changes, on_device = AutoAugment(POLICIES[policy], (32, 32, 3), torch.device("cuda")), pixels.cuda()
    with host_never_waits():
        changed = changes(on_device, drawn)
    assert torch.equal(changed.cpu(), expected)
