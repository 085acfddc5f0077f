"""A pretrained language model in the place of the compact decoder: a real, trained one, a quarter of a million
parameters large. See data/stories260k/README.md."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from recbole_contrec.backbone import CausalDecoder, PretrainedDecoder
from recbole_contrec.backbone.probe import reads_branches
from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from recbole_contrec.training.averaging import WeightAverage
from recbole_contrec.training.window_trainer import parameter_groups
from tests.helpers.files import STORIES

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


@pytest.fixture(scope="module")
def stories():
    """All of its weights in training, none changed."""
    return PretrainedDecoder(str(STORIES), lora_rank=0).eval()


def adapted(name=STORIES, seed=0, **settings):
    """With adapters that are not at their start any more, where they do nothing."""
    torch.manual_seed(seed)
    decoder = PretrainedDecoder(str(name), **{"lora_rank": 4, **settings})
    with torch.no_grad():
        for key, parameter in decoder.named_parameters():
            if "lora_B" in key:
                nn.init.normal_(parameter, std=0.05)
    return decoder.eval()


def folder_of(path, without=(), tokenizer=None, **config):
    """The model in a folder of its own, with some files left out and some settings changed."""
    shutil.copytree(STORIES, path)
    for name in without:
        (path / name).unlink()
    for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer or {})):
        if (path / name).exists():
            settings = {**json.loads((path / name).read_text()), **changes}
            (path / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return path


def renumber(path, **numbers):
    """Give words other numbers."""
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"].update(numbers)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))


def random_model(path, kind, **config):
    """An untrained model of another architecture, with the same words."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder_of(path, without=["config.json", "model.safetensors", "generation_config.json"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            kind,
            **{
                "vocab_size": 512,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
                **config,
            },
        )
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return path


def close(actual, expected, tolerance=2e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# words and states


def test_the_model_and_its_words(stories):
    assert (stories.hidden_size, stories.max_positions, stories.end_id) == (64, 512, 2)
    numbers = stories.vocabulary.encode(STORY).ids
    assert numbers[0] == 1 and stories.vocabulary.decode(numbers) == STORY
    vectors = stories.read(torch.tensor([numbers]))
    assert vectors.shape == (1, len(numbers), 64) and vectors.dtype == torch.float32
    assert all(parameter.requires_grad for parameter in stories.parameters())


def test_word_scores_are_the_logits_of_transformers(stories):
    from transformers import AutoModelForCausalLM

    numbers = torch.randint(3, 512, (3, 9), generator=torch.Generator().manual_seed(0))
    theirs = AutoModelForCausalLM.from_pretrained(STORIES)
    with torch.no_grad():
        expected = theirs(numbers).logits
        close(stories.word_logits(stories(stories.read(numbers))), expected)
        padded = torch.cat([stories.read(numbers), 1e3 * torch.ones(3, 4, 64)], dim=1)
        close(stories.word_logits(stories(padded)[:, :9]), expected)


def greedy(decoder, text, length):
    """Text that goes on word by word with the likeliest one."""
    numbers = decoder.vocabulary.encode(text).ids
    vectors = decoder.read(torch.tensor([numbers]))
    states, memory = decoder.start(vectors, torch.tensor([[len(numbers) - 1]]), room=length)
    for _ in range(length):
        word = decoder.word_logits(states).argmax(-1)  # [1, 1]
        numbers.append(int(word))
        states, memory = decoder.step(memory, decoder.read(word), torch.zeros(1, 1, dtype=torch.long))
    return numbers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
def test_it_tells_its_story_as_generate_does(dtype):
    from transformers import AutoModelForCausalLM

    decoder = PretrainedDecoder(str(STORIES), dtype, lora_rank=0).eval()
    numbers = greedy(decoder, "Once upon a time", 28)
    assert decoder.vocabulary.decode(numbers).startswith(STORY)
    if dtype == "float32":
        theirs = AutoModelForCausalLM.from_pretrained(STORIES)
        expected = theirs.generate(torch.tensor([numbers[:5]]), do_sample=False, max_new_tokens=28)
        assert numbers == expected[0].tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inside_single_outside(stories, dtype):
    half = adapted(dtype=dtype)
    frozen = {parameter.dtype for parameter in half.parameters() if not parameter.requires_grad}
    trained = {parameter.dtype for parameter in half.parameters() if parameter.requires_grad}
    assert frozen == {getattr(torch, dtype)} and trained == {torch.float32}
    inputs = half.read(torch.arange(3, 23)[None])
    states = half(inputs)
    assert inputs.dtype == states.dtype == half.word_logits(states).dtype == torch.float32
    single = adapted()
    distance = (states - single(inputs)).norm() / single(inputs).norm()
    assert 1e-6 < distance < 0.03
    states.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.requires_grad)


def test_states_at_are_forward_at_one_position(stories):
    inputs, last = torch.randn(4, 12, 64), torch.tensor([11, 0, 4, 7])
    expected = stories(inputs)[torch.arange(4), last]
    assert not expected.isclose(stories(inputs)[:, -1]).all(1)[1:].any()
    close(stories.states_at(inputs, last[:, None])[:, 0], expected)
    close(stories.start(inputs, last[:, None], room=0)[0][:, 0], expected)


# branches


def decoders():
    compact = CausalDecoder(64, n_layers=2, n_heads=2, max_positions=64, dropout=0.5).eval()
    for parameter in compact.parameters():
        nn.init.normal_(parameter, std=0.2)
    return {"compact": lambda: compact, "sdpa": adapted, "eager": lambda: adapted(attention="eager")}


@pytest.fixture(scope="module", params=["compact", "sdpa", "eager"])
def decoder(request):
    torch.manual_seed(0)
    return decoders()[request.param]()


def test_steps_in_branches_equal_separate_rows(decoder):
    """Prompts of several lengths; branches that go on from one parent, from another, and from none; a step taken
    back."""
    inputs, last = torch.randn(3, 9, 64), torch.tensor([8, 0, 5])
    _, memory = decoder.start(inputs, last[:, None], room=2 + 4 + 3)
    branches = [[inputs[row, : last[row] + 1]] for row in range(3)]
    for parents in ([[0, 0]] * 3, [[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], [[3, 2, 0], [0, 1, 2], [1, 1, 3]]):
        read, parents_of = torch.randn(3, len(parents[0]), 64), torch.tensor(parents)
        decoder.step(memory, torch.randn_like(read), parents_of)
        states, memory = decoder.step(memory, read, parents_of)
        branches = [
            [torch.cat([branches[row][parent], own[None]]) for parent, own in zip(parents[row], read[row])]
            for row in range(3)
        ]
        with torch.no_grad():
            again = torch.stack([torch.stack([decoder(branch[None])[0, -1] for branch in row]) for row in branches])
        close(states, again)


def test_a_step_reads_the_keys_where_they_lie(stories):
    """Its heads of queries share heads of keys, which are not copied for each of them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        copied = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if function in (torch.ops.aten.copy_.default, torch.ops.aten.clone.default):
                self.copied = max(self.copied, arguments[0].numel())
            return function(*arguments, **(options or {}))

    _, memory = stories.start(torch.randn(2, 200, 64), torch.tensor([[199], [150]]), room=3)
    with Largest() as largest:
        stories.step(memory, torch.randn(2, 3, 64), torch.zeros(2, 3, dtype=torch.long))
    assert largest.copied < 2 * 4 * 203 * 8  # the keys of a layer: rows, heads, positions, width


def positions_computed(decoder, function):
    """Positions that pass through the feed-forward layer of the first block."""
    first, found = next(module for name, module in decoder.named_modules() if name.endswith("mlp")), []
    handle = first.register_forward_hook(lambda module, inputs, states: found.append(states[..., 0].numel()))
    function()
    handle.remove()
    return sum(found)


def test_leading_positions_that_all_rows_share_are_read_once(decoder, monkeypatch):
    inputs, at = torch.randn(5, 12, 64), torch.tensor([[11], [7], [10], [9], [8]])
    inputs[:, :7] = inputs[:1, :7]
    expected, shared = decoder.states_at(inputs, at), dict(shared=7)
    assert positions_computed(decoder, lambda: decoder.states_at(inputs, at)) == 5 * 12
    for limit in (2**14, 12 * 3):
        monkeypatch.setattr(type(decoder), "POSITIONS", limit, raising=False)
        close(decoder.states_at(inputs, at, **shared), expected)
    monkeypatch.undo()
    states, memory = decoder.start(inputs, at, 1, **shared)
    close(states, expected)
    for function in (lambda: decoder.states_at(inputs, at, **shared), lambda: decoder.start(inputs, at, 1, **shared)):
        assert positions_computed(decoder, function) == 7 + 5 * 5
    assert positions_computed(decoder, lambda: decoder.states_at(inputs, at, shared=1)) == 5 * 12  # not worth it
    read, parents = torch.randn(5, 1, 64), torch.zeros(5, 1, dtype=torch.long)
    close(decoder.step(memory, read, parents)[0], decoder.step(decoder.start(inputs, at, 1)[1], read, parents)[0])


def tree(prefixes, lengths):
    """Positions [B, S] and what is visible [B, S, S]: branches of some lengths behind prefixes of some lengths [B];
    between the prefix and its branches, and at the end of rows, stands padding that nothing sees."""
    places = max(prefixes) + sum(lengths)
    positions = torch.zeros(len(prefixes), places, dtype=torch.long)
    visible = torch.zeros(len(prefixes), places, places, dtype=torch.bool)
    for row, prefix in enumerate(prefixes):
        positions[row, :prefix] = torch.arange(prefix)
        visible[row, :prefix, :prefix] = torch.ones(prefix, prefix, dtype=torch.bool).tril()
        begin = max(prefixes)
        for length in lengths:
            own = slice(begin, begin + length)
            positions[row, own] = prefix + torch.arange(length)
            visible[row, own, :prefix] = True
            visible[row, own, own] = torch.ones(length, length, dtype=torch.bool).tril()
            begin += length
    return positions, visible


def sequences(inputs, prefixes, lengths):
    """The same prompts one by one: (row, where its own states begin, vectors [1, s, D])."""
    for row, prefix in enumerate(prefixes):
        begin = max(prefixes)
        for length in lengths:
            yield row, begin, torch.cat([inputs[row, :prefix], inputs[row, begin : begin + length]])[None]
            begin += length


def test_a_tree_in_one_row_equals_separate_sequences(decoder):
    prefixes, lengths = [6, 4], [3, 1, 4]
    inputs = torch.randn(2, 14, 64)
    with torch.no_grad():
        states = decoder(inputs, *tree(prefixes, lengths))
        assert states.isfinite().all()
        for row, begin, sequence in sequences(inputs, prefixes, lengths):
            prefix, own = prefixes[row], sequence.shape[1] - prefixes[row]
            alone = decoder(sequence)[0]
            close(states[row, :prefix], alone[:prefix])
            close(states[row, begin : begin + own], alone[prefix:])


def test_a_tree_learns_what_separate_sequences_learn(decoder):
    prefixes, lengths = [5, 2], [2, 3]
    inputs, weights = torch.randn(2, 10, 64), torch.randn(2, 10, 64)
    (decoder(inputs, *tree(prefixes, lengths)) * weights)[:, 5:].sum().backward()
    found = {key: parameter.grad.clone() for key, parameter in decoder.named_parameters() if parameter.requires_grad}
    decoder.zero_grad()
    for row, begin, sequence in sequences(inputs, prefixes, lengths):
        own = sequence.shape[1] - prefixes[row]
        (decoder(sequence)[0, prefixes[row] :] * weights[row, begin : begin + own]).sum().backward()
    for key, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            expected = parameter.grad
            assert (found[key] - expected).norm() <= 1e-4 * expected.norm(), key
    decoder.zero_grad()


def test_positions_alone_change_no_visibility(decoder):
    """Also where numbers that start again look like texts packed into one row, which transformers keeps apart."""
    inputs, positions = torch.randn(2, 6, 64), torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    with torch.no_grad():
        everything = torch.ones(2, 6, 6, dtype=torch.bool).tril()
        close(decoder(inputs, positions), decoder(inputs, positions, everything))
        close(decoder(inputs, visible=everything), decoder(inputs))
        close(decoder(inputs, torch.arange(6).expand(2, -1)), decoder(inputs))
        assert not decoder(inputs, positions)[:, 3:].isclose(decoder(inputs)[:, 3:], atol=1e-3).all(-1).any()


def test_branches_under_autocast(decoder):
    prefixes, lengths = [6, 4], [3, 1]
    inputs = torch.randn(2, 10, 64)
    with torch.no_grad():
        expected = decoder(inputs, *tree(prefixes, lengths))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = decoder(inputs, *tree(prefixes, lengths))
            _, memory = decoder.start(inputs[:, :6], torch.tensor([[5], [3]]), room=1)
            stepped, _ = decoder.step(memory, inputs[:, 6:7], torch.zeros(2, 1, dtype=torch.long))
    assert states.isfinite().all()
    assert (states - expected)[:, 6:].norm() < 0.05 * expected[:, 6:].norm()
    assert (stepped[:, 0] - expected[:, 6]).norm() < 0.05 * expected[:, 6].norm()


def test_a_prompt_that_is_too_long(decoder):
    limit = decoder.max_positions
    inputs = torch.zeros(1, 4, 64)
    for attempt in (
        lambda: decoder(torch.zeros(1, limit + 1, 64)),
        lambda: decoder(inputs, torch.tensor([[0, 1, 2, limit]])),
        lambda: decoder.start(torch.zeros(1, limit + 1, 64), torch.tensor([[limit]]), 0),
    ):
        with pytest.raises(ValueError, match=f"{limit + 1} positions is longer than max_positions={limit}"):
            attempt()
    assert decoder(torch.zeros(1, limit, 64)).shape == (1, limit, 64)


def test_a_step_past_the_last_position(stories):
    _, memory = stories.start(torch.zeros(2, 512, 64), torch.tensor([[510], [511]]), room=1)
    with pytest.raises(ValueError, match="513 positions is longer"):
        stories.step(memory, torch.zeros(2, 1, 64), torch.zeros(2, 1, dtype=torch.long))


def test_flash_attention_hands_branches_over(stories):
    """It takes no mask; here, where it is not installed, whatever went through it would be an error."""
    inputs, order = torch.randn(2, 10, 64), tree([6, 4], [3, 1])
    config = stories.model.config
    with torch.no_grad():
        expected = stories(inputs, *order)
        config._attn_implementation = "flash_attention_2"
        try:
            close(stories(inputs, *order), expected)
            assert config._attn_implementation == "flash_attention_2"
            with pytest.raises(Exception):  # noqa: B017, which one depends on what is installed
                stories(inputs)
        finally:
            config._attn_implementation = "sdpa"


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


def test_checkpoints_know_how_many_layers_they_were_trained_on(tmp_path):
    cut, inputs = adapted(layers=3, lora_layers=2), torch.randn(2, 7, 64)
    checkpoint.save(tmp_path / "x.safetensors", cut.state_dict(), {})
    state = checkpoint.load(tmp_path / "x.safetensors").tensors
    again = adapted(seed=1, layers=3, lora_layers=2)
    again.load_state_dict(state)
    assert again(inputs).equal(cut(inputs))
    with pytest.raises(RuntimeError, match="trained on 3 layers of .*, not on all layers: see llm_layers"):
        adapted().load_state_dict(state)
    with pytest.raises(RuntimeError, match="trained on all layers of .*, not on 3 layers"):
        cut.load_state_dict(adapted().state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        adapted(layers=3).load_state_dict(state)


# checkpoints


class Recommender(nn.Module):
    """A model around it: names get a prefix."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(64, 2)


def test_adapters_go_through_a_checkpoint_without_the_base(tmp_path):
    model, inputs = Recommender(adapted()), torch.randn(2, 7, 64)
    checkpoint.save(tmp_path / "x.safetensors", model.state_dict(), {})
    stored = checkpoint.load(tmp_path / "x.safetensors").tensors
    assert all("lora_" in key or key.endswith("_extra_state") or key.startswith("head.") for key in stored)
    again = Recommender(adapted(seed=1))
    assert not torch.allclose(again.backbone(inputs), model.backbone(inputs), atol=1e-2)
    model.backbone.requires_grad_(False)  # what is saved does not depend on it
    assert model.state_dict().keys() == stored.keys() and again.load_state_dict(stored).missing_keys == []
    assert again.backbone(inputs).equal(model.backbone(inputs))
    del stored[next(key for key in stored if "lora_A" in key)]
    with pytest.raises(RuntimeError, match="Missing key.*lora_A"):
        again.load_state_dict(stored)
    with pytest.raises(RuntimeError, match="Missing key.*head.bias"):
        again.load_state_dict({key: tensor for key, tensor in stored.items() if key != "head.bias"})


def test_all_weights_go_through_a_checkpoint_once(tmp_path):
    decoder, inputs = PretrainedDecoder(str(STORIES), lora_rank=0).eval(), torch.randn(2, 7, 64)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(1.1)
    state = decoder.state_dict()
    assert "model.model.embed_tokens.weight" in state and "model.lm_head.weight" not in state  # they are one
    again = PretrainedDecoder(str(STORIES), lora_rank=0).eval()
    again.load_state_dict(state)
    assert again.word_logits(again(inputs)).equal(decoder.word_logits(decoder(inputs)))
    with pytest.raises(RuntimeError, match="lora_rank=0, not lora_alpha=16.0"):
        adapted().load_state_dict(state)
    with pytest.raises(RuntimeError, match="lora_alpha=16.0, not lora_rank=0"):
        decoder.load_state_dict(adapted().state_dict())


def test_all_weights_are_refused_where_training_did_not_begin_there(tmp_path):
    """Codes and tokens are read as large as the words were before training, which no weight of the checkpoint tells."""
    trained = PretrainedDecoder(str(STORIES), lora_rank=0)
    before = trained.word_size
    with torch.no_grad():
        trained.get_parameter("model.model.embed_tokens.weight").mul_(1.5)
    state = trained.state_dict()
    assert trained.word_size == before
    elsewhere = folder_of(tmp_path / "copy")
    for same in ({}, {"dtype": "bfloat16"}):
        PretrainedDecoder(str(elsewhere), lora_rank=0, **same).load_state_dict(state)
    weights = load_file(elsewhere / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1.1
    save_file(weights, elsewhere / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"began at the weights of .*stories260k; those of .*copy are others"):
        PretrainedDecoder(str(elsewhere), lora_rank=0).load_state_dict(state)


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_random_weights_come_in_the_format_of_pretrained_ones_and_positions_stay_exact(dtype, tmp_path):
    folder = shutil.copytree(STORIES, tmp_path / "half")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    models = [PretrainedDecoder(str(folder), lora_rank=0, dtype=dtype, random_seed=seed) for seed in (None, 1)]
    trained, drawn = (dict(model.named_buffers()) for model in models)
    assert drawn.keys() == trained.keys() and any("inv_freq" in name for name in drawn)
    assert all(torch.equal(drawn[name], trained[name]) for name in drawn)
    for model in models:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_random_weights_keep_architecture_and_words_and_come_back_from_their_seed(stories):
    torch.manual_seed(5)
    first = PretrainedDecoder(str(STORIES), lora_rank=0, random_seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # nothing else that is drawn depends on them
    again, other = (PretrainedDecoder(str(STORIES), lora_rank=0, random_seed=seed) for seed in (1, 2))
    weights = [dict(model.named_parameters()) for model in (stories, first, again, other)]
    assert all(weights[0].keys() == each.keys() for each in weights)
    matrices = [key for key, weight in weights[0].items() if weight.dim() == 2]
    assert matrices and all(torch.equal(weights[1][key], weights[2][key]) for key in matrices)
    for ours in (weights[0], weights[3]):
        assert not any(torch.equal(weights[1][key], ours[key]) for key in matrices)
    assert first.vocabulary.encode(STORY).ids == stories.vocabulary.encode(STORY).ids
    assert PretrainedDecoder(str(STORIES), dtype="bfloat16", random_seed=1).read(torch.tensor([3])).isfinite().all()


def test_adapters_of_trained_weights_are_refused_on_random_ones():
    state = adapted().state_dict()
    with pytest.raises(RuntimeError, match="those of .* are others"):
        adapted(random_seed=1).load_state_dict(state)


def test_adapters_of_another_model_are_refused(tmp_path):
    state = adapted().state_dict()
    elsewhere = folder_of(tmp_path / "copy")
    for same in (adapted(elsewhere), adapted(dtype="bfloat16"), adapted(dtype="float16")):
        same.load_state_dict(state)
    weights = load_file(elsewhere / "model.safetensors")
    weights["model.layers.3.mlp.up_proj.weight"] *= 1.02
    save_file(weights, elsewhere / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        RuntimeError, match=r"trained on top of the weights of .*stories260k; those of .*copy are others"
    ):
        adapted(elsewhere).load_state_dict(state)
    with pytest.raises(RuntimeError, match="lora_alpha=16.0, not lora_alpha=8.0"):
        adapted(lora_alpha=8.0).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        adapted(lora_rank=2).load_state_dict(state)
    renumber(elsewhere, **{"▁the": 366, "▁they": 265})  # the other way round
    with pytest.raises(RuntimeError, match="other words"):
        adapted(elsewhere).load_state_dict(state)


def test_a_run_keeps_adapters_for_us_and_for_peft(assembled):
    """What the trainer writes beside the best model is read by peft, and its checkpoint by a new run."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from recbole_contrec.training.identity import load_weights

    loaded, again = assembled("ContRec", "--hidden_size=64"), assembled("ContRec", "--hidden_size=64")
    loaded.model.backbone, again.model.backbone = adapted(), adapted(seed=1)
    trainer, inputs = loaded.trainer, torch.randn(2, 7, 64)
    for epoch in (0, 1):  # the second one takes the place of the first
        trainer._save_checkpoint(epoch, verbose=False)
    # the first one is kept until the state of the epoch is saved as well
    assert sorted(path.name for path in trainer.folder.iterdir()) == [
        "adapter",
        "best.before.safetensors",
        "best.safetensors",
    ]
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(STORIES), trainer.folder / "adapter").eval()
    expected = loaded.model.backbone(inputs)
    close(theirs.base_model.model.model(inputs_embeds=inputs).last_hidden_state, expected)
    path = trainer.folder / "best.safetensors"
    load_weights(again.model, path, "ContRec", trainer.identity)
    assert again.model.backbone(inputs).equal(expected)
    again.model.backbone = adapted(lora_alpha=1.0)
    with pytest.raises(UserError, match=r"best.safetensors does not fit .* lora_alpha=16.0, not lora_alpha=1.0"):
        load_weights(again.model, path, "ContRec", trainer.identity)
    assert PretrainedDecoder(str(STORIES), lora_rank=0).exports() == {}


# other models


def test_rows_without_a_word_are_never_predicted(tmp_path, stories):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(STORIES)
    model.resize_token_embeddings(640, mean_resizing=False)
    model.save_pretrained(folder_of(tmp_path / "more rows", without=["model.safetensors"]))
    more, states = PretrainedDecoder(str(tmp_path / "more rows"), lora_rank=0), torch.randn(2, 64)
    close(more.word_logits(states), stories.word_logits(states))  # [2, 512]
    renumber(tmp_path / "more rows", **{"▁they": 515})
    scores = PretrainedDecoder(str(tmp_path / "more rows"), lora_rank=0).word_logits(states)
    assert scores.shape == (2, 516) and scores.isfinite().sum(1).tolist() == [512, 512]
    assert scores[:, [366, 512, 513, 514]].eq(-torch.inf).all()


@pytest.mark.parametrize("kind, settings", [("gemma2", {"attention": "eager"}), ("cohere", {}), ("granite", {})])
def test_scores_are_scaled_as_the_architecture_does(tmp_path, kind, settings):
    own = {"granite": {"logits_scaling": 8.0}, "cohere": {"logit_scale": 0.1}}.get(
        kind, {"final_logit_softcapping": 2.0}
    )
    decoder = PretrainedDecoder(str(random_model(tmp_path / kind, kind, **own)), lora_rank=0, **settings).eval()
    numbers = torch.randint(3, 512, (2, 6))
    with torch.no_grad():
        expected = decoder.model(numbers).logits
        plain = decoder.model.get_output_embeddings()(decoder(decoder.read(numbers)))
        close(decoder.word_logits(decoder(decoder.read(numbers))), expected)
        assert (plain - expected).norm() > 0.1 * expected.norm()


def test_layers_with_a_window(tmp_path):
    """Branches within it are read, longer prompts as the model itself reads them, and longer branches not at all."""
    path = random_model(tmp_path / "window", "mistral", sliding_window=6)
    decoder = PretrainedDecoder(str(path), lora_rank=0).eval()
    inputs, zeros = torch.randn(1, 9, 16), torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        close(decoder(inputs), decoder.model.model(inputs_embeds=inputs).last_hidden_state)
        order = tree([4], [2, 2])
        close(decoder(inputs[:, :8], *order)[0, 6:], decoder(inputs[:, [0, 1, 2, 3, 6, 7]])[0, 4:])
        rows = torch.cat([inputs, inputs])
        close(
            decoder.states_at(rows, torch.tensor([[8], [7]]), shared=6),
            decoder.states_at(rows, torch.tensor([[8], [7]])),
        )
        _, memory = decoder.start(inputs[:, :5], torch.tensor([[4]]), room=2)
        stepped, memory = decoder.step(memory, inputs[:, 5:6], zeros)
        close(stepped, decoder(inputs[:, :6])[:, 5:])
        for attempt in (
            lambda: decoder(inputs[:, :8], *tree([4], [4])),
            lambda: decoder.start(inputs, zeros, 1),
            lambda: decoder.step(memory, inputs[:, 6:7], zeros),
        ):
            with pytest.raises(ValueError, match="some layers see 6 positions only"):
                attempt()


def test_a_model_without_position_numbers_reads_plain_prompts(tmp_path):
    path = random_model(tmp_path / "bloom", "bloom", n_head=2, n_layer=2)
    decoder = PretrainedDecoder(str(path), attention="eager").eval()
    assert decoder(torch.randn(2, 5, 16)).shape == (2, 5, 16)
    inputs, at = torch.randn(1, 5, 16).expand(2, -1, -1), torch.tensor([[4], [4]])
    close(decoder.states_at(inputs, at, shared=3), decoder.states_at(inputs, at))
    for attempt in (
        lambda: decoder(torch.randn(2, 5, 16), torch.arange(5).expand(2, -1)),
        lambda: decoder.start(torch.randn(1, 5, 16), torch.tensor([[4]]), 1),
    ):
        with pytest.raises(ValueError, match="a bloom model .* cannot read branches"):
            attempt()


def test_an_architecture_that_ignores_masks_or_has_no_cache_is_noticed(stories, monkeypatch):
    words, forward = torch.tensor([265, 300, 400]), stories.forward
    nothing, refused = (lambda *_: None), (lambda *_: {}["layers"])
    assert reads_branches(stories, words)
    for method, instead in (
        ("forward", lambda inputs, positions=None, visible=None: forward(inputs)),
        ("forward", lambda inputs, positions=None, visible=None: forward(inputs, positions)),
        ("start", refused),
        ("step", refused),
        ("step", nothing),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(stories, method, instead)
            assert not reads_branches(stories, words)


# what cannot be


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dtype": "int8"}, "dtype='int8': choose one of auto, float32"),
        ({"attention": "fast"}, "attention='fast': choose one of sdpa, eager"),
        ({"attention": "flash_attention_2"}, "needs a dtype of bfloat16 or float16"),
        ({"quantisation": "2bit"}, "quantisation='2bit': choose one of None, 4bit, 8bit"),
        ({"quantisation": "4bit", "lora_rank": 0}, "cannot be trained, set lora_rank"),
        ({"quantisation": "4bit", "random_seed": 1}, "random weights are not quantised"),
        ({"lora_rank": -1}, "lora_rank=-1"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"lora_targets": ["q_proj", "v_prj"]}, "no layer 'v_prj'.*did you mean v_proj"),
        ({"layers": 6}, "llm_layers=6: the model has 5 layers"),
        ({"layers": 3, "lora_layers": 4}, "lora_layers=4: of the model 3 layers are used"),
        ({"lora_layers": 2, "lora_rank": 0}, "lora_layers=2: with lora_rank=0 all layers are trained"),
        ({"lora_targets": []}, "name at least one layer"),
        ({"lora_targets": "act_fn"}, "'act_fn'. cannot be adapted"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        PretrainedDecoder(str(STORIES), **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"attention": "flash_attention_2", "dtype": "bfloat16"}, "pip install flash-attn"),
        ({"quantisation": "4bit"}, r"pip install 'recbole_contrec\[quantised\]'"),
        ({"lora_rank": 1}, r"pip install 'recbole_contrec\[llm\]'"),
    ],
)
def test_packages_that_are_missing(settings, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for package in ("flash_attn", "bitsandbytes"):
        if package in sys.modules:
            pytest.skip(f"{package} is here")
    with pytest.raises(UserError, match=message):
        PretrainedDecoder(str(STORIES), **settings)


BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"without": ["config.json"]}, "holds no transformers model"),
        ({"without": ["model.safetensors"]}, "holds no transformers model"),
        ({"without": ["tokenizer.json"]}, r"its tokenizer cannot be loaded: its files \(tokenizer.json\) are missing"),
        ({"without": ["tokenizer.json", "tokenizer_config.json"]}, r"its files \(tokenizer.json\) are missing"),
        ({"tokenizer": {"eos_token": None}}, "no end of text: its tokenizer_config.json needs an eos_token"),
        ({"tokenizer": {"eos_token": None}, **BERT}, "is a bert model, not a causal language model"),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "is a t5 model, not a causal language model"),
        ({"model_type": "something-new"}, "does not know models of its kind: pip install -U transformers"),
        ({"model_type": "something-new", "auto_map": {"AutoConfig": "x.Y"}}, "code of its own, which is not executed"),
        ({"num_hidden_layers": 6}, "its files lack 9 of its tensors, such as model.layers.5"),
        ({"hidden_size": 128}, "cannot be loaded"),
    ],
)
def test_folders_that_hold_no_such_model(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        PretrainedDecoder(str(folder_of(tmp_path / "x", **changes)))
    assert str(tmp_path) in str(error.value) and str(error.value).count("\n") < 2


def test_a_model_that_reads_both_ways_is_refused(tmp_path):
    path = random_model(tmp_path / "bert", "bert", is_decoder=False)
    with pytest.raises(UserError, match="is a bert model, not a causal language model"):
        PretrainedDecoder(str(path))


def test_damaged_files(tmp_path):
    path = folder_of(tmp_path / "x")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be loaded"):
        PretrainedDecoder(str(path))
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not a valid JSON file"):
        PretrainedDecoder(str(path))


def test_a_tokenizer_with_more_words_than_the_model(tmp_path):
    path = folder_of(tmp_path / "x")
    renumber(path, **{"▁they": 512})
    with pytest.raises(UserError, match="its tokenizer has 513 words, its model 512"):
        PretrainedDecoder(str(path))


def test_the_length_of_somebody_elses_texts_is_forgotten(tmp_path):
    from tokenizers import Tokenizer

    path = folder_of(tmp_path / "x")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(path / "tokenizer.json"))
    decoder = PretrainedDecoder(str(path))
    assert decoder.vocabulary.decode(decoder.vocabulary.encode(STORY).ids) == STORY
    assert len(decoder.vocabulary.encode("a").ids) == 2
