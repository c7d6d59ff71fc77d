import pytest
import torch

from sam.training.precision import Precision, float32_products

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_computes_products_in_the_named_precision(name, dtype):
    with Precision(name, CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("name", "mode"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_float32_products_set_the_switches_of_gpus_and_put_them_back(name, mode):
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    with pytest.raises(ZeroDivisionError), float32_products("tf32"):
        with float32_products(name):
            assert [switch.fp32_precision for switch in switches] == [mode, mode]
        assert [switch.fp32_precision for switch in switches] == ["tf32", "tf32"]
        raise ZeroDivisionError
    assert [switch.fp32_precision for switch in switches] == before


def test_precision_leaves_the_switches_alone():
    before = torch.backends.cudnn.conv.fp32_precision
    Precision("fp32", CPU)
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_unscaled_undoes_the_loss_scale():
    precision = Precision("fp16", CPU)
    assert precision.scales_loss
    scaled = precision.scaler.scale(torch.tensor(3.0))
    assert float(scaled) == 3 * 65536
    assert float(precision.unscaled(scaled)) == 3
    assert float(Precision("bf16", CPU).unscaled(scaled)) == 3 * 65536
