"""Dropout by 16 random bits an element: as random as torch's own, and every model has it unless told not to."""

import pytest
import torch
from torch import nn

from recbole_contrec.backbone.dropout import FastDropout, use_fast_dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_as_often_and_as_much_as_torch(p):
    torch.manual_seed(1)
    found = FastDropout(p)(torch.ones(1000, 999))
    dropped = (found == 0).double()
    assert abs(dropped.mean() - p) < 5 * (p * (1 - p) / found.numel()) ** 0.5
    assert torch.equal(found.unique(), torch.tensor([0.0, 65536 / (65536 - round(p * 65536))]))
    assert abs(found.mean() - 1) < 0.01 / (1 - p)


def test_elements_that_share_a_draw_are_independent():
    torch.manual_seed(2)
    dropped = (FastDropout(0.5)(torch.ones(400_000)) == 0).double().view(-1, 4)
    for lag in range(1, 8):
        flat = dropped.flatten() - 0.5
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 * 0.25 / len(flat) ** 0.5, f"{lag} apart"
    assert (dropped.mean(0) - 0.5).abs().max() < 5 * 0.5 / len(dropped) ** 0.5, "each of the four as often"


def test_gradients_pass_where_states_passed():
    states = torch.randn(7, 3, 5, requires_grad=True)  # 105 elements: no multiple of four
    torch.manual_seed(3)
    found = FastDropout(0.3)(states)
    found.sum().backward()
    torch.testing.assert_close(found, states.detach() * states.grad)
    assert set((states.grad == 0).flatten().tolist()) == {False, True}


def test_a_seed_repeats_it_and_the_next_call_does_not():
    drop, states = FastDropout(0.5), torch.ones(64)
    torch.manual_seed(4)
    first, second = drop(states), drop(states)
    torch.manual_seed(4)
    assert torch.equal(drop(states), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything(p):
    states = torch.randn(9)
    assert torch.equal(FastDropout(p)(states), states * (1 - p))
    assert torch.equal(FastDropout(0.5).eval()(states), states)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_states_keep_shape_and_type(dtype):
    states = torch.ones(4, 6, 2, dtype=dtype).transpose(0, 1)
    found = FastDropout(0.5)(states)
    assert found.dtype == dtype and found.shape == states.shape


def test_in_place_is_still_in_place():
    states = torch.ones(100)
    assert FastDropout(0.5, inplace=True)(states) is states
    assert (states == 0).any()


def test_takes_the_place_of_torchs_own_and_of_no_other():
    model = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.1, inplace=True)), nn.AlphaDropout(0.2)).eval()
    use_fast_dropout(model)
    assert [(type(module), module.p) for module in model.modules() if hasattr(module, "p")] == [
        (FastDropout, 0.3),
        (FastDropout, 0.1),
        (nn.AlphaDropout, 0.2),
    ]
    assert model[1][0].inplace and not model[0].training


def test_what_refers_to_a_dropout_goes_on_to_do_so():
    """Another name in the model, a list that torch does not look into, a hook."""
    model, called = nn.Module(), []
    model.first = model.second = nn.Dropout(0.3)
    model.steps = [model.first]
    model.first.register_forward_hook(lambda *_: called.append(1))
    use_fast_dropout(model)
    assert model.second is model.first is model.steps[0] and type(model.first) is FastDropout
    model.second(torch.ones(3))
    assert called == [1]


def test_states_on_the_cpu_beside_another_default_device():
    with torch.device("meta"):
        found = FastDropout(0.5)(torch.ones(64, device="cpu"))
    assert found.device.type == "cpu" and set(found.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("model", ["SASRec", "ContRec", "TIGER-paper", "SASRecAll"])
def test_models_have_it_unless_told_not_to(assembled, model):
    kinds = {type(module) for module in assembled(model).model.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {FastDropout}
    plain = assembled(model, "--fast_dropout=False").model
    assert {type(module) for module in plain.modules() if isinstance(module, nn.Dropout)} == {nn.Dropout}
