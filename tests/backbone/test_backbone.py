"""The prompt puts vectors where it says, and a state never sees what comes after it."""

import pytest
import torch

from recbole_contrec.backbone import CausalDecoder, Prompt, Words, length_groups, rows_at_once


def new_prompt(item_positions, n_user_tokens=2, n_item_tokens=3, soft_prompt_length=4):
    torch.manual_seed(0)
    return Prompt(8, soft_prompt_length, n_user_tokens, n_item_tokens, item_positions, max_items=5)


@pytest.mark.parametrize("item_positions, positions", [("one", 1), ("each", 3)])
def test_layout_and_way_back(item_positions, positions):
    prompt = new_prompt(item_positions)
    users, items = torch.randn(2, 2, 8), torch.randn(2, 5, 3, 8)
    layout = prompt(users, items)
    vectors = layout.vectors
    assert vectors.shape == (2, prompt.max_positions, 8) == (2, 4 + 2 + 5 * positions, 8)
    torch.testing.assert_close(vectors[:, :4], prompt.instruction.expand(2, -1, -1))
    torch.testing.assert_close(vectors[:, 4:6], users)
    wanted = items.sum(2) if item_positions == "one" else items[:, :, -1]
    torch.testing.assert_close(layout.after_items(vectors), wanted)
    length = torch.tensor([1, 4])
    torch.testing.assert_close(vectors[torch.arange(2), layout.last(length)], wanted[torch.arange(2), length - 1])


@pytest.mark.parametrize("item_positions, positions", [("one", 1), ("each", 3)])
def test_words_stand_in_front_of_their_item_without_gaps(item_positions, positions):
    torch.manual_seed(0)
    prompt = Prompt(8, 1, 2, 3, item_positions, max_items=4, words_per_item=5)
    assert prompt.max_positions == 1 + 2 + 4 * (5 + positions)
    users, items, words = torch.randn(2, 2, 8), torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8)
    lengths = torch.tensor([[2, 0, 5, 1], [0, 1, 5, 5]])
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    layout = prompt(users, items, Words(words, lengths, real))
    for row in range(2):
        wanted = [prompt.instruction[0], *users[row]]
        for item in range(real[row].sum()):
            wanted += [*words[row, item, : lengths[row, item]]]
            wanted += [items[row, item].sum(0)] if positions == 1 else [*items[row, item]]
            assert layout.ends[row, item] == len(wanted) - 1
        torch.testing.assert_close(layout.vectors[row, : len(wanted)], torch.stack(wanted))
        assert (layout.ends[row, real[row].sum() :] == len(wanted) - 1).all()  # padding takes no position
    assert layout.vectors.shape[1] == 3 + 4 * positions + 8  # as long as the longest row


@pytest.mark.parametrize("item_positions", ["one", "each"])
def test_tokens_are_scaled_and_nothing_else(item_positions):
    torch.manual_seed(0)
    plain, small = (
        Prompt(8, 1, 2, 3, item_positions, max_items=4, words_per_item=1, token_scale=scale) for scale in (1, 0.1)
    )
    small.load_state_dict(plain.state_dict())
    users, items = torch.randn(2, 2, 8), torch.randn(2, 4, 3, 8)
    words = Words(torch.randn(2, 4, 1, 8), torch.tensor([[1, 0, 1, 1]] * 2), torch.ones(2, 4, dtype=torch.bool))
    before, after = plain(users, items, words).vectors, small(users, items, words).vectors
    tokens = plain(users, items, words._replace(vectors=torch.zeros(2, 4, 1, 8))).vectors.abs().sum(-1) > 0  # [B, S]
    tokens[:, 0] = False  # the instruction
    torch.testing.assert_close(after, torch.where(tokens[..., None], 0.1 * before, before))
    assert (~tokens).sum() == 2 * (1 + 3)


def test_no_users_and_no_instruction():
    prompt = new_prompt("one", n_user_tokens=0, soft_prompt_length=0)
    items = torch.randn(2, 5, 3, 8)
    torch.testing.assert_close(prompt(None, items).vectors, items.sum(2))


def test_wrong_layout_names_the_choices():
    with pytest.raises(ValueError, match="'one' or 'each'"):
        new_prompt("two")


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return CausalDecoder(8, n_layers=2, n_heads=2, max_positions=12, dropout=0.0).double().eval()


def test_a_state_sees_its_past_only(decoder):
    inputs = torch.randn(3, 10, 8, dtype=torch.float64)
    changed = inputs.clone()
    changed[:, 6] = torch.randn(3, 8, dtype=torch.float64)
    before, after = decoder(inputs), decoder(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amax(dim=(0, 2)).gt(1e-6).all()


def test_padding_at_the_end_changes_nothing(decoder):
    inputs = torch.randn(3, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(decoder(inputs)[:, :7], decoder(inputs[:, :7]))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_prompts_of_several_lengths_at_once_equal_transformers_one_by_one(dropout):
    """The states, the gradients, and the random numbers of dropout, drawn between those of the prompts themselves."""
    torch.manual_seed(0)
    decoder = CausalDecoder(8, n_layers=2, n_heads=2, max_positions=12, dropout=dropout).double().train()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    def prompts():
        for size in ((3, 12, 8), (1, 1, 8), (4, 5, 8)):
            yield torch.randn(size, dtype=torch.float64)

    def by_transformers(prompt):
        positions = torch.arange(prompt.shape[1])[None]
        return decoder.transformer(inputs_embeds=prompt, position_ids=positions).last_hidden_state

    found = []
    for read in (lambda: [by_transformers(one) for one in prompts()], lambda: decoder.states_of_each(prompts())):
        torch.manual_seed(1)
        states = read()
        loss = sum(part.sin().sum() for part in states)
        found.append([*states, *torch.autograd.grad(loss, list(decoder.parameters()))])
    for wanted, ours in zip(*found):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_one_state_a_row_equals_the_whole_pass(n_layers):
    torch.manual_seed(0)
    decoder = CausalDecoder(8, n_layers, n_heads=2, max_positions=12, dropout=0.5).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inputs, last = torch.randn(5, 12, 8, dtype=torch.float64), torch.tensor([11, 0, 4, 7, 10])
    torch.testing.assert_close(decoder.states_at(inputs, last[:, None])[:, 0], decoder(inputs)[torch.arange(5), last])
    several = torch.stack([last, last.flip(0)], dim=1)
    torch.testing.assert_close(decoder.states_at(inputs, several), decoder(inputs)[torch.arange(5)[:, None], several])


@pytest.mark.parametrize("n_layers", [1, 2])
def test_stepping_in_branches_equals_reading_every_branch_again(n_layers):
    """Prompts of several lengths; branches that go on from one parent, from another, and from none."""
    torch.manual_seed(0)
    decoder = CausalDecoder(8, n_layers, n_heads=2, max_positions=12, dropout=0.5).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inputs, last = torch.randn(3, 9, 8, dtype=torch.float64), torch.tensor([8, 0, 5])
    states, memory = decoder.start(inputs, last[:, None], room=2 + 4 + 3)
    torch.testing.assert_close(states, decoder.states_at(inputs, last[:, None]))
    branches = [[inputs[row, : last[row] + 1]] for row in range(3)]
    for parents in ([[0, 0]] * 3, [[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], [[3, 2, 0], [0, 1, 2], [1, 1, 3]]):
        read = torch.randn(3, len(parents[0]), 8, dtype=torch.float64)
        states, memory = decoder.step(memory, read, torch.tensor(parents))
        branches = [
            [torch.cat([branches[row][parent], own[None]]) for parent, own in zip(parents[row], read[row])]
            for row in range(3)
        ]
        again = torch.stack([torch.stack([decoder(branch[None])[0, -1] for branch in row]) for row in branches])
        torch.testing.assert_close(states, again)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("rows, shared", [(3, 0), (3, 1), (3, 2), (3, 4), (1, 4)])
def test_leading_positions_that_all_rows_share_change_nothing(n_layers, rows, shared):
    torch.manual_seed(0)
    decoder = CausalDecoder(8, n_layers, n_heads=2, max_positions=12).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inputs, at = torch.randn(rows, 9, 8, dtype=torch.float64), torch.tensor([[8, 4], [4, 4], [5, 7]])[:rows]
    inputs[:, :shared] = inputs[:1, :shared]
    expected = decoder(inputs)[torch.arange(rows)[:, None], at]
    torch.testing.assert_close(decoder.states_at(inputs, at, shared), expected)
    read, parents, stepped = torch.randn(rows, 2, 8, dtype=torch.float64), torch.tensor([[1, 0]] * rows), []
    for told in (0, shared):
        states, memory = decoder.start(inputs, at, room=2, shared=told)
        torch.testing.assert_close(states, expected)
        stepped.append(decoder.step(memory, read, parents)[0])
    torch.testing.assert_close(*stepped)


def test_branches_drop_what_a_plain_prompt_drops():
    decoder = CausalDecoder(8, n_layers=2, n_heads=2, max_positions=12, dropout=0.3).double().train()
    inputs, states = torch.randn(2, 9, 8, dtype=torch.float64), []
    for order in ((), (None, torch.ones(2, 9, 9, dtype=torch.bool).tril())):
        torch.manual_seed(0)
        states.append(decoder(inputs, *order))
    torch.testing.assert_close(*states)


def test_order_matters(decoder):
    inputs = torch.randn(1, 4, 8, dtype=torch.float64)
    assert not torch.allclose(decoder(inputs)[:, -1], decoder(inputs[:, [1, 0, 2, 3]])[:, -1])


def test_every_parameter_learns(decoder):
    decoder(torch.randn(2, 12, 8, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_errors_say_what_is_allowed(decoder):
    with pytest.raises(ValueError, match="max_positions=12"):
        decoder(torch.randn(1, 13, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="n_heads=3 must divide hidden_size=8"):
        CausalDecoder(8, 1, 3, 4)


def test_length_groups_cover_all_rows_with_little_padding():
    lengths = torch.randint(1, 200, (500,), generator=torch.Generator().manual_seed(0))
    counts = []
    for waste in (0.0, 0.05, 0.1, 0.9):
        groups = length_groups(lengths, waste)
        assert torch.cat(groups).sort().values.equal(torch.arange(500))
        computed = sum(len(rows) * int(lengths[rows[0]]) for rows in groups)
        assert all(lengths[rows[0]] == lengths[rows].max() for rows in groups)
        assert (1 - waste) * computed <= lengths.sum()
        counts.append(len(groups))
    assert counts[0] == len(lengths.unique()) > counts[1] > counts[2] > counts[3] == 1


def test_length_groups_are_the_cheapest_of_their_number():
    """Against all ways to cut nine lengths into as many groups."""
    from itertools import combinations

    lengths = torch.tensor([3, 50, 49, 3, 20, 18, 19, 1, 90])
    groups = length_groups(lengths)
    ordered = sorted(lengths.tolist(), reverse=True)

    def computed(borders):
        edges = [0, *borders, len(ordered)]
        return sum(ordered[first] * (last - first) for first, last in zip(edges, edges[1:]))

    cheapest = min(map(computed, combinations(range(1, len(ordered)), len(groups) - 1)))
    assert sum(len(rows) * int(lengths[rows[0]]) for rows in groups) == cheapest
    assert len(length_groups(torch.full((5,), 7))) == 1 and len(length_groups(torch.tensor([4]))) == 1


def test_a_cpu_reads_fewer_rows_at_once():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert rows_at_once(300, 2**18, cpu) == 27 and rows_at_once(300, 2**18, gpu) == 873
    assert rows_at_once(300, 1000, cpu) == 3 and rows_at_once(300, 100, gpu) == 1
