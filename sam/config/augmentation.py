"""The keys of an augmentation, and which of them cannot be combined."""

import dataclasses
from collections.abc import Iterator

from sam.config.dataset import FILE_READERS, DatasetConfig
from sam.config.setting import setting


@dataclasses.dataclass
class AugmentationConfig:
    """Random changes of every training image."""

    # Name in paths and tables.
    name: str = setting("none", label=True)
    # Mirror left to right with probability 1/2.
    flip: bool = False
    # Pad by this number of pixels on each side, then crop at a random place. 0 means off.
    crop_padding: int = setting(0, at_least=0)
    # Border: reflect (as in the released code) or zero (the mean colour).
    padding: str = setting("reflect", choices=("reflect", "zero"))
    # Side in pixels of a square that is set to the mean colour, clipped at the border. 0 means off.
    cutout_size: int = setting(0, at_least=0)
    # One square per image, or one per batch at the same place for all, as in the released code.
    cutout_scope: str = setting("image", choices=("image", "batch"))
    # AutoAugment (Cubuk et al. 2019): the policy that was found on this dataset. It comes before flip and
    # crop. cifar10_released_code: the 95 pairs and the magnitudes of the released code.
    auto_augment: str = setting(
        "none", choices=("none", "cifar10", "svhn", "imagenet", "cifar10_released_code")
    )
    # batch: AutoAugment draws once per batch and changes all its images at once, on the training device.
    # image: it draws for each image, and worker processes change one image after the other. Image files
    # always use image.
    auto_augment_draws: str = setting("image", choices=("image", "batch"))
    # Image files: crop 8 to 100 % of the area with an aspect ratio of 3/4 to 4/3, instead of the centre.
    inception_crop: bool = False
    # Mixup (Zhang et al. 2018): lambda ~ Beta(alpha, alpha), one lambda per batch. 0 means off.
    mixup_alpha: float = setting(0.0, at_least=0)


def draws_per_batch(augmentation: AugmentationConfig, dataset: DatasetConfig) -> bool:
    """Return whether AutoAugment changes whole batches on the training device."""
    in_memory = dataset.reader not in FILE_READERS or dataset.in_memory
    return augmentation.auto_augment != "none" and augmentation.auto_augment_draws == "batch" and in_memory


def augmentation_clashes(augmentation: AugmentationConfig, dataset: DatasetConfig) -> Iterator[str]:
    """Yield one message for each augmentation that the dataset does not allow."""
    if augmentation.inception_crop and (dataset.reader not in FILE_READERS or dataset.in_memory):
        yield (
            "augmentation.inception_crop=true needs images of full size: a dataset of files, with "
            "dataset.in_memory=false"
        )
