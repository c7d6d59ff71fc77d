import pytest
import torch

from sam import build, build_data
from sam.models.gates import Gate
from sam.training.precision import Precision
from tests.conftest import changed

CPU = torch.device("cpu")


@pytest.mark.parametrize("true_gradient", [True, False])
def test_gates_have_the_true_gradient_in_the_first_pass_only_and_if_told_to(true_gradient):
    config = changed(
        {
            "dataset.reader": "synthetic",
            "dataset.num_train": 8,
            "dataset.num_test": 2,
            "dataset.image_size": 12,
            "dataset.num_classes": 2,
            "model.architecture": "pyramidnet",
            "model.depth": 11,
            "model.width": 4,
            "model.alpha": 3,
            "model.shakedrop": True,
            "optimizer.true_gradient": true_gradient,
        }
    )
    data = build_data.dataset(config.dataset, seed=0)
    network = build.model(config.model, data, CPU)
    modes = []
    gates = [layer for layer in network.modules() if isinstance(layer, Gate)]
    gates[0].register_forward_hook(lambda gate, *_: modes.append(gate.true_gradient))
    update = build.update(config, network, network, Precision("fp32", CPU))
    for _ in range(2):
        update(torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 0, 1]), lr=0.1)
    assert len(gates) == 3
    assert modes == [true_gradient, False] * 2
