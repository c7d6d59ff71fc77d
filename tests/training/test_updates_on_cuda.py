"""Updates on a GPU against the same updates on a CPU, which other tests compare with the formulas."""

import pytest
import torch

from tests.devices import BOUNDS_ON_GPU, GPU
from tests.training.test_replay import RULES, batches, network, update_of

# AdamW divides by the gradient's length, so it magnifies the rounding of the smallest gradients.
SAME_ON_BOTH = {name: changes for name, changes in RULES.items() if name not in ("bf16", "fp16", "adamw")}
SAME_ON_BOTH["second order"] = {"optimizer.second_order": True}


@pytest.mark.parametrize("device", [GPU])
@pytest.mark.parametrize("graph", ["false", "auto"])
@pytest.mark.parametrize("rule", SAME_ON_BOTH)
def test_updates_on_a_gpu_go_the_way_of_those_on_a_cpu_on_cuda(rule, graph, device):
    trained = []
    for place in ("cpu", device):
        model = network().double().to(place)
        keys = {"batch_size": 8, "m": 4, **SAME_ON_BOTH[rule], "runtime.device": place}
        update = update_of(model, keys if place == "cpu" else {**keys, "runtime.graph": graph})
        sums = []
        for step, (images, targets, clean) in enumerate(batches(noisy=True)):
            batch = images.double().to(place), targets.to(place), 0.1, clean.to(place)
            sums.append(update(*batch, step).cpu())
        trained.append((model.cpu().state_dict(), torch.stack(sums)))
    (on_cpu, sums_on_cpu), (on_gpu, sums_on_gpu) = trained
    for name, tensor in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], tensor, **BOUNDS_ON_GPU)
    torch.testing.assert_close(sums_on_gpu, sums_on_cpu, rtol=1e-5, atol=1e-6)
