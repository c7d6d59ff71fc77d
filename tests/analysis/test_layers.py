"""Tests of sam/analysis/layers.py."""

import pytest
import torch
from torch import nn

from sam.analysis.layers import layer_spectra, num_layers
from tests.analysis.networks import assert_same_bits, conv_net, sample_of, state_of
from tests.analysis.test_hessian import full_hessian


def test_layers_have_largest_eigenvalue_and_trace_of_the_blocks_of_the_full_hessian():
    network = conv_net()
    before = state_of(network)
    sample = sample_of(network)
    full = full_hessian(sample)
    spectra = layer_spectra(sample, probes=20)
    assert [spectrum.name for spectrum in spectra] == ["0", "1", "3", "4", "8"]
    assert num_layers(sample) == 5
    start = 0
    for spectrum in spectra:
        end = start + spectrum.num_parameters
        block = full[start:end, start:end]
        largest = float(torch.linalg.eigvalsh(block)[-1])
        assert spectrum.lambda_max == pytest.approx(largest, rel=1e-4)
        assert abs(spectrum.lambda_max - largest) <= spectrum.residual + 1e-12
        # 20 probes; correct code would be off by 6 standard errors for one seed in 10**5.
        assert abs(spectrum.trace - float(block.trace())) < 6 * spectrum.trace_standard_error
        start = end
    assert start == len(full)
    assert_same_bits(network, before)


def test_weights_of_two_layers_are_measured_once_and_unused_ones_are_zero():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4))
    network[4].weight = network[3].weight
    network.idle = nn.Parameter(torch.ones(3))
    spectra = layer_spectra(sample_of(network.double()), probes=1)
    sizes = {spectrum.name: spectrum.num_parameters for spectrum in spectra}
    assert sizes == {"": 3, "1": 436, "3": 20, "4": 4}
    assert (spectra[0].lambda_max, spectra[0].trace) == (0, 0)
    assert spectra[0].trace_standard_error is None
