"""The T5 that writes: causal, blind to padding, and branches beside each other know nothing of each other."""

import pytest
import torch
from torch.nn.functional import pad

from recbole_contrec.backbone import T5Writer

D = 16


@pytest.fixture
def writer():
    torch.manual_seed(0)
    model = T5Writer(D, n_layers=2, n_heads=2).double().eval()
    for stack in (model.transformer.encoder, model.transformer.decoder):  # far from equal, so that places differ
        torch.nn.init.normal_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    return model


@pytest.fixture
def prompts():
    return torch.randn(3, 7, D, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def written():
    return torch.randn(3, 5, D, dtype=torch.double, generator=torch.Generator().manual_seed(2))


# the decoder


def test_states_are_those_of_transformers_own_decoder(writer, prompts, written):
    encoded, real = writer.encode(prompts, torch.tensor([7, 4, 2]))
    own = torch.cat([writer.first.expand(3, 1, -1), written], dim=1)
    theirs = writer.transformer.decoder(
        inputs_embeds=own, encoder_hidden_states=encoded, use_cache=False, encoder_attention_mask=real.long()
    ).last_hidden_state
    torch.testing.assert_close(writer.decode(encoded, real, written), theirs)


def test_decoding_is_causal(writer, prompts, written):
    encoded = writer.encode(prompts)
    before = writer.decode(*encoded, written)
    for place in range(5):
        changed = written.clone()
        changed[:, place] += 1
        after = writer.decode(*encoded, changed)
        torch.testing.assert_close(after[:, : place + 1], before[:, : place + 1])  # the start, and what is before
        assert (after[:, place + 1 :] - before[:, place + 1 :]).abs().amax(2).gt(1e-6).all()


def test_the_start_alone(writer, prompts, written):
    encoded = writer.encode(prompts)
    alone = writer.decode(*encoded, written[:, :0])
    assert alone.shape == (3, 1, D)
    torch.testing.assert_close(alone, writer.decode(*encoded, written)[:, :1])


def test_every_state_depends_on_the_whole_prompt(writer, prompts, written):
    before = writer.decode(*writer.encode(prompts), written)
    for place in (0, 3, 6):
        changed = prompts.clone()
        changed[:, place] += 1
        after = writer.decode(*writer.encode(changed), written)
        assert (after - before).abs().amax(2).gt(1e-6).all()


def test_a_step_knows_how_far_back_another_is(writer, prompts, written):
    encoded = writer.encode(prompts)
    positions = torch.arange(1, 6).expand(3, -1)
    torch.testing.assert_close(writer.decode(*encoded, written, positions), writer.decode(*encoded, written))
    apart = writer.decode(*encoded, written, positions + (positions > 3))
    assert (apart[:, 4] - writer.decode(*encoded, written)[:, 4]).abs().max() > 1e-6


# branches


def test_branches_beside_each_other_equal_branches_alone(writer, prompts):
    """A tree: two first steps, three seconds on them, three thirds on these; all in one row."""
    vectors = torch.randn(3, 8, D, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    parents = [None, None, 0, 1, 1, 2, 2, 4]
    paths = []
    for place, parent in enumerate(parents):
        paths.append((paths[parent] if parent is not None else []) + [place])
    visible = torch.zeros(3, 8, 8, dtype=torch.bool)
    for place, path in enumerate(paths):
        visible[:, place, path] = True
    positions = torch.tensor([len(path) for path in paths]).expand(3, -1)
    encoded = writer.encode(prompts, torch.tensor([7, 5, 3]))
    together = writer.decode(*encoded, vectors, positions, visible)
    for place, path in enumerate(paths):
        alone = writer.decode(*encoded, vectors[:, path])
        torch.testing.assert_close(together[:, 1 + place], alone[:, -1])
    torch.testing.assert_close(together[:, 0], alone[:, 0])


# padding


def test_padding_of_the_prompt_is_inert(writer, prompts, written):
    length = torch.tensor([7, 5, 2])
    encoded, real = writer.encode(prompts, length)
    assert real.sum(1).tolist() == [7, 5, 2]
    states = writer.decode(encoded, real, written)
    other = torch.where(real[..., None], prompts, 100.0)
    torch.testing.assert_close(writer.decode(*writer.encode(other, length), written), states)
    longer = pad(prompts, (0, 0, 0, 4), value=7.0)
    torch.testing.assert_close(writer.decode(*writer.encode(longer, length), written), states)
    for row in range(3):
        alone = writer.encode(prompts[row : row + 1, : length[row]])
        torch.testing.assert_close(writer.decode(*alone, written[row : row + 1])[0], states[row])


def test_padding_gets_no_gradient(writer, prompts, written):
    prompts.requires_grad_(True)
    writer.decode(*writer.encode(prompts, torch.tensor([7, 5, 2])), written).square().sum().backward()
    moved = prompts.grad.abs().sum(2) > 0
    assert moved.sum(1).tolist() == [7, 5, 2]


# training


def test_all_parameters_learn_and_only_vectors_are_read(writer, prompts, written):
    writer.decode(*writer.encode(prompts), written).square().sum().backward()
    lacking = [name for name, parameter in writer.named_parameters() if parameter.grad is None]
    assert not lacking
    assert not [name for name, _ in writer.named_parameters() if "embed_tokens" in name or "shared" in name]


def test_dropout_is_for_training_only(prompts, written):
    model = T5Writer(D, 1, 2, dropout=0.3).double()
    assert not torch.equal(model.decode(*model.encode(prompts), written), model.decode(*model.encode(prompts), written))
    model.eval()
    torch.testing.assert_close(
        model.decode(*model.encode(prompts), written), model.decode(*model.encode(prompts), written)
    )


def test_the_width_of_the_feed_forward_layers():
    def count(**sizes):
        return sum(parameter.numel() for parameter in T5Writer(D, 1, 2, **sizes).parameters())

    assert count() == count(intermediate_size=4 * D) == count(intermediate_size=D) + 2 * 2 * 3 * D * D


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="n_heads=3 must divide hidden_size=16"):
        T5Writer(D, 1, 3)


# step by step


def test_steps_give_what_each_branch_gives_written_alone(writer, prompts):
    """Four steps whose branches go on from any of those before, in rows of their own lengths."""
    drawn = torch.Generator().manual_seed(3)
    length = torch.tensor([7, 4, 2])
    states, memory = writer.start(prompts, length[:, None] - 1, room=0)
    encoded = writer.encode(prompts, length)
    torch.testing.assert_close(states, writer.decode(*encoded, prompts[:, :0]))
    paths = [[[]] for _ in range(3)]  # what every branch of every row has written
    for before, width in ((1, 4), (4, 3), (3, 5), (5, 2)):
        parents = torch.randint(before, (3, width), generator=drawn)
        inputs = torch.randn(3, width, D, dtype=torch.double, generator=drawn)
        states, memory = writer.step(memory, inputs, parents)
        paths = [
            [[*paths[row][parent], inputs[row, place]] for place, parent in enumerate(parents[row].tolist())]
            for row in range(3)
        ]
        for place in range(width):
            alone = torch.stack([torch.stack(paths[row][place]) for row in range(3)])
            torch.testing.assert_close(states[:, place], writer.decode(*encoded, alone)[:, -1])
