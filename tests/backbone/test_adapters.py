"""What learns in a pretrained language model: adapters, all weights, nothing, or some layers."""

import warnings

import pytest
import torch

from recbole_contrec.backbone import PretrainedDecoder
from recbole_contrec.training.averaging import WeightAverage
from recbole_contrec.training.window_trainer import parameter_groups
from tests.helpers.files import STORIES
from tests.helpers.stories import adapted, close, random_model, tree

# training


def test_only_adapters_learn():
    decoder = PretrainedDecoder(str(STORIES), lora_rank=4).train()
    before = {key: parameter.detach().clone() for key, parameter in decoder.named_parameters()}
    groups = parameter_groups(decoder, 0.0)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for _ in range(2):  # at first one half of every adapter is zero, and so is the gradient of the other
        optimizer.zero_grad()
        decoder(torch.randn(2, 5, 64)).square().sum().backward()
        optimizer.step()
    changed = {key for key, parameter in decoder.named_parameters() if not parameter.equal(before[key])}
    assert changed == {key for key in before if "lora_" in key} and len(changed) == 2 * 5 * 7
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in decoder.parameters() if p.requires_grad
    }
    assert all(parameter.grad is None for key, parameter in decoder.named_parameters() if key not in changed)
    assert set(WeightAverage(decoder, 0.9).average) == changed


def test_adapters_are_added_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PretrainedDecoder(str(STORIES), lora_rank=2).train() is not None


def test_nothing_learns_in_a_frozen_model_and_gradients_pass_through_it(stories):
    frozen, inputs = PretrainedDecoder(str(STORIES), trained=False).train(), torch.randn(2, 5, 64, requires_grad=True)
    states = frozen(inputs)
    torch.testing.assert_close(states, stories(inputs))
    states.square().sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert list(frozen.state_dict()) == ["_extra_state"] and not frozen.exports()
    frozen.load_state_dict(PretrainedDecoder(str(STORIES), trained=False).state_dict())
    with pytest.raises(RuntimeError, match="it was trained on top of the weights of"):
        frozen.load_state_dict(PretrainedDecoder(str(STORIES), trained=False, random_seed=1).state_dict())
    with pytest.raises(RuntimeError, match="it was trained with lora_rank=0, not train_llm=False"):
        frozen.load_state_dict(stories.state_dict(), strict=False)


@pytest.mark.parametrize("order", [(), tree([5, 3], [2, 2])], ids=["plain", "branches"])
def test_gradient_checkpointing_changes_no_gradient(order):
    inputs, gradients = torch.randn(2, 9, 64), []
    for checkpointing in (False, True):
        decoder = adapted(gradient_checkpointing=checkpointing).train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t
        ):
            states = decoder(inputs, *order)
        states.square().sum().backward()
        gradients.append(({key: p.grad for key, p in decoder.named_parameters() if p.requires_grad}, sum(kept)))
        assert not decoder.read(torch.tensor([5])).requires_grad
    (without, all_of_it), (recomputed, little) = gradients
    assert little < all_of_it / 4
    for key, gradient in without.items():
        close(recomputed[key], gradient)


def test_scale_and_dropout_of_the_adapters():
    with torch.no_grad():
        inputs = torch.randn(1, 5, 64)
        layers = [
            decoder.model.get_base_model().model.layers[0].self_attn.q_proj
            for decoder in (adapted(lora_alpha=4.0), adapted(lora_alpha=12.0), adapted(lora_dropout=0.5).train())
        ]
        added = [layer(inputs) - layer.base_layer(inputs) for layer in layers]
        close(3 * added[0], added[1])
        assert not added[2].isclose(layers[2](inputs) - layers[2].base_layer(inputs)).any(-1).all()


def test_targets_of_the_adapters():
    def layers(targets):
        decoder = PretrainedDecoder(str(STORIES), lora_targets=targets)
        return {key.split(".")[-4] for key, parameter in decoder.named_parameters() if parameter.requires_grad}

    assert layers("all-linear") == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    assert layers("default") == {"q_proj", "v_proj"}  # peft's choice for Llama
    assert layers(["k_proj", "o_proj"]) == {"k_proj", "o_proj"} and layers("up_proj") == {"up_proj"}


# some of the layers


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gemma2", "gpt_neo"])
def test_the_first_layers_alone_are_read_as_transformers_reads_them(tmp_path, kind):
    """Their states, behind the final norm, are those that the whole model has in its midst; words and branches go on
    working."""
    own = {
        "gemma2": {"sliding_window": 8},
        "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    }.get(kind, {})
    path = random_model(tmp_path / kind, kind, num_hidden_layers=4, **own)
    settings = {"attention": "eager"} if kind == "gemma2" else {}
    whole, cut = (PretrainedDecoder(str(path), lora_rank=0, layers=layers, **settings).eval() for layers in (None, 2))
    numbers = torch.randint(3, 512, (2, 6))
    with torch.no_grad():
        inside = whole.model(numbers, output_hidden_states=True).hidden_states[2]  # behind two layers, without the norm
        norm = next(part for name, part in whole._body.named_children() if name in ("norm", "ln_f"))
        close(cut(cut.read(numbers)), norm(inside))
        close(cut.model(numbers).logits, cut.word_logits(cut(cut.read(numbers))))
        inputs, at = cut.read(numbers), torch.tensor([[5], [4]])
        close(cut.states_at(inputs, at), cut(inputs).gather(1, at[..., None].expand(-1, -1, 16)))
        if cut._branches:
            states, memory = cut.start(inputs[:, :5], torch.full((2, 1), 4), room=1)
            stepped, _ = cut.step(memory, inputs[:, 5:], torch.zeros(2, 1, dtype=torch.long))
            close(torch.cat([states, stepped], dim=1), cut(inputs)[:, 4:])
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())


def test_all_layers_by_their_number_are_all_layers(stories):
    all_of_them, inputs = PretrainedDecoder(str(STORIES), lora_rank=0, layers=5).eval(), torch.randn(2, 7, 64)
    assert all_of_them(inputs).equal(stories(inputs))
    stories.load_state_dict(all_of_them.state_dict())


def adapted_layers(**settings):
    decoder = adapted(**settings)
    return {int(key.split(".layers.")[1].split(".")[0]) for key, p in decoder.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("targets", ["all-linear", "default", ["k_proj"], "up_proj"])
def test_adapters_on_the_upper_layers_alone(targets):
    assert adapted_layers(lora_layers=2, lora_targets=targets) == {3, 4}
    assert adapted_layers(lora_layers=1, layers=3, lora_targets=targets) == {2}
    assert (
        adapted_layers(lora_layers=5, lora_targets=targets) == adapted_layers(lora_targets=targets) == {0, 1, 2, 3, 4}
    )


def test_frozen_lower_layers_hand_gradients_down_and_none_of_their_own_are_kept():
    decoder, inputs = adapted(lora_layers=2).train(), torch.randn(1, 5, 64, requires_grad=True)
    decoder(inputs).square().sum().backward()
    assert inputs.grad.abs().sum() > 0  # what is trained in front of them learns
    assert all((p.grad is not None) == p.requires_grad for key, p in decoder.named_parameters())
