"""A pretrained language model in the place of the compact decoder: words, states, and branches behind a prompt."""

import pytest
import torch
from torch import nn

from recbole_contrec.backbone import CausalDecoder, PretrainedDecoder
from tests.helpers.files import STORIES
from tests.helpers.stories import STORY, adapted, close, tree

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
