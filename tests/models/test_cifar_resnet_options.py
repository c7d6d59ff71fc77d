"""Tests of sam/models/cifar_resnet.py: skip=False."""

import torch
from torch import nn

from sam.models.cifar_resnet import CifarResNet, CifarResNetBlock


def resnet(depth: int, width: int, skip: bool) -> CifarResNet:
    torch.manual_seed(0)
    return CifarResNet(depth=depth, width=width, in_channels=3, num_classes=10, skip=skip)


def test_resnet_without_skips_has_the_parameters_of_the_one_with_skips() -> None:
    plain, residual = resnet(14, 4, skip=False).state_dict(), resnet(14, 4, skip=True).state_dict()
    assert list(plain) == list(residual)
    assert all(map(torch.equal, plain.values(), residual.values()))


def test_resnet56_without_skips_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = resnet(56, 16, skip=False)
    # 0.85 M in He et al., Table 6; the shortcuts of option A have no parameters.
    assert sum(weight.numel() for weight in model.parameters()) == 853_018
    assert not any(block.skip for block in model.blocks)


def test_block_without_skip_is_a_plain_chain() -> None:
    torch.manual_seed(0)
    block = CifarResNetBlock(2, 3, 2, skip=False)
    chain = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2, nn.ReLU())
    images = torch.randn(4, 2, 6, 6)
    assert torch.equal(block(images), chain(images))


def test_resnet_without_skips_forgets_the_image_when_a_block_gives_nothing() -> None:
    images = torch.randn(2, 3, 8, 8)
    for skip in (False, True):
        model = resnet(8, 4, skip).eval()
        nn.init.zeros_(model.blocks[1].bn2.weight)
        logits = model(images)
        assert torch.equal(logits[0], logits[1]) != skip
