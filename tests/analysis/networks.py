"""Small networks and samples for the tests of analyses."""

import torch
from torch import nn

from sam.analysis.sample import SampleLoss


def conv_net(seed=0, dtype=torch.float64):
    """Return two convolutions and a linear layer, with batch norm that is not as at the start."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(5 * 4 * 4, 3),
    )
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.2)
            nn.init.normal_(layer.bias, 0, 0.2)
    return network.to(dtype)


def sample_of(network, num_images=14, chunk_size=5, batch_statistics=False, seed=1):
    """Return the loss over random images of 6 x 6 pixels."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    images = torch.randn(num_images, 3, 6, 6, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(3, (num_images,), generator=generator)
    return SampleLoss(network, images, targets, chunk_size, batch_statistics)


def state_of(network):
    """Return copies of everything a network holds."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same_bits(network, state):
    """Check that a network holds what it held."""
    assert network.state_dict().keys() == state.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
