"""The trie against prefixes in a Python dictionary, the beam against lists and against everything there is."""

import pytest
import torch

from recbole_contrec.decoding import AllTuples, CodeTrie, beam_search, diverse_beam_search

C = 6


def random_codes(n_items, depth=3, seed=0):
    """Codes [1 + n_items, K] of distinct tuples; the padding has those of item 1."""
    drawn = torch.randperm(C**depth, generator=torch.Generator().manual_seed(seed))[:n_items]
    codes = torch.stack([drawn // C**level % C for level in range(depth)], dim=1)
    return torch.cat([codes[:1], codes])


class TableModel:
    """Log-probabilities of every code after every prefix, from tables [B, C, ..., C] of growing depth."""

    def __init__(self, batch, depth=3):
        torch.manual_seed(1)
        self.tables = [torch.randn(batch, *[C] * level, C).log_softmax(-1) for level in range(depth)]
        self.prefix = torch.zeros(batch, 1, 0, dtype=torch.long)  # [B, w, level]

    def __call__(self, codes, parents):
        if codes is not None:
            kept = self.prefix.gather(1, parents[..., None].expand(-1, -1, self.prefix.shape[2]))
            self.prefix = torch.cat([kept, codes[..., None]], dim=2)
        rows = torch.arange(len(self.prefix))[:, None]
        return self.tables[self.prefix.shape[2]][(rows, *self.prefix.unbind(2))].expand(*self.prefix.shape[:2], C)

    def score(self, row, prefix):
        """Log-probability of a prefix, a plain sum."""
        return sum(float(self.tables[level][(row, *prefix[: level + 1])]) for level in range(len(prefix)))


def beam_of_lists(model, row, codes, width, excluded=()):
    """Scores and items as lists, by sets of prefixes of what is not excluded."""
    tuples = {tuple(row): item for item, row in enumerate(codes.tolist()) if item and item not in excluded}
    alive = [()]
    for level in range(1, codes.shape[1] + 1):
        grown = {prefix[:level] for prefix in tuples if prefix[: level - 1] in alive}
        alive = sorted(grown, key=lambda prefix: -model.score(row, prefix))[:width]
    return [model.score(row, prefix) for prefix in alive], [tuples[prefix] for prefix in alive]


@pytest.mark.parametrize("n_items, depth", [(100, 3), (1, 3), (5, 1), (36, 2)])
def test_trie_has_the_prefixes_of_the_items(n_items, depth):
    codes = random_codes(n_items, depth)
    codes = torch.cat([codes, torch.full((1, depth), C)])  # an item without codes
    trie = CodeTrie(codes, C)
    prefixes = {(): 0}
    for level in range(depth):
        children = trie.children(level, torch.tensor(list(prefixes.values())))
        found = {
            prefix + (int(code),): int(node)
            for row, prefix in enumerate(prefixes)
            for node, code in zip(children.nodes[row][children.real[row]], children.codes[row][children.real[row]])
        }
        assert set(found) == {tuple(row[: level + 1]) for row in codes[1:-1].tolist()}
        assert sorted(found.values()) == [*range(len(found))]
        prefixes = found
    assert all(trie.items[leaf] == codes[1:].tolist().index([*prefix]) + 1 for prefix, leaf in prefixes.items())


def test_trie_refuses_what_is_not_a_catalogue():
    with pytest.raises(ValueError, match="3 items have only 2 different tuples"):
        CodeTrie(torch.tensor([[0, 0], [0, 1], [1, 1], [0, 1]]), 2)
    with pytest.raises(ValueError, match="no item has codes"):
        CodeTrie(torch.tensor([[0, 0], [2, 2]]), 2)


def test_trie_grows_with_items_not_with_nodes_times_codes():
    codes = torch.randint(512, (20_000, 3), generator=torch.Generator().manual_seed(0)).unique(dim=0)
    trie = CodeTrie(codes, 512)
    numbers = trie.items.numel() + sum(level.first.numel() + level.codes.numel() for level in trie._levels)
    assert numbers < 2 * codes.numel()


@pytest.mark.parametrize("n_items", [1, 40, 216])
@pytest.mark.parametrize("n_excluded", [0, 1, 30])
def test_what_remains_without_some_items_is_what_leads_to_others(n_items, n_excluded):
    codes = random_codes(n_items)
    trie, prefixes = CodeTrie(codes, C), [()]
    excluded = torch.randint(n_items + 1, (4, n_excluded), generator=torch.Generator().manual_seed(2))
    for level in range(3):
        nodes = torch.arange(len(prefixes)).expand(4, -1)
        children, found = trie.children(level, nodes), trie.remaining(level, nodes, trie.leaves(excluded))
        below = {
            int(node): prefix + (int(code),)
            for row, prefix in enumerate(prefixes)
            for node, code, real in zip(children.nodes[0, row], children.codes[0, row], children.real[0, row])
            if real
        }
        for row in range(4):
            kept = {tuple(tuple_) for item, tuple_ in enumerate(codes.tolist()) if item and item not in excluded[row]}
            alive = children.nodes[row][children.real[row] & found[row]]
            assert {below[node] for node in alive.tolist()} == {prefix[: level + 1] for prefix in kept}
        prefixes = [below[node] for node in sorted(below)]


def test_most_children_by_level():
    assert CodeTrie(torch.tensor([[0, 0], [0, 1], [0, 2], [3, 1]]), C).widest == [2, 2]


def test_leaves_rise_and_count_every_item_once():
    trie = CodeTrie(random_codes(100), C)
    leaves = trie.leaves(torch.tensor([[7, 0, 7, 3], [0, 0, 0, 100], [5, 6, 7, 8]]))
    assert (leaves.diff(dim=1) >= 0).all()
    real = leaves < 100
    assert [sorted(trie.items[row[of]].tolist()) for row, of in zip(leaves, real)] == [[3, 7], [100], [5, 6, 7, 8]]
    assert (leaves[~real] == 100).all()


def test_memory_is_that_of_all_tensors():
    small, large = (CodeTrie(random_codes(n), C) for n in (50, 200))
    assert large.nbytes > 2 * small.nbytes
    assert CodeTrie(torch.tensor([[0], [1], [2]]), C).nbytes == 8 * (
        2 + 3 + 2 + 2 + 3
    )  # items, leaves; first, codes, leaves


@pytest.mark.parametrize("width", [1, 4, 20, 100])
def test_beam_is_that_of_lists(width):
    codes = random_codes(100)
    model = TableModel(batch=5)
    excluded = torch.tensor([[0, 0, 0], [7, 0, 7], [1, 2, 3], [100, 50, 0], [0, 0, 9]])
    found = beam_search(CodeTrie(codes, C), width, TableModel(batch=5))
    without = beam_search(CodeTrie(codes, C), width, TableModel(batch=5), excluded)
    for row in range(5):
        for beams, left_out in ((found, ()), (without, excluded[row].tolist())):
            scores, items = beam_of_lists(model, row, codes, width, left_out)
            missing = width - len(items)
            assert beams.items[row].tolist() == items + [0] * missing
            torch.testing.assert_close(beams.log_probs[row], torch.tensor(scores + [-torch.inf] * missing))


def test_a_beam_as_wide_as_the_catalogue_finds_the_best():
    codes = random_codes(100)
    model = TableModel(batch=2)
    found = beam_search(CodeTrie(codes, C), 100, TableModel(batch=2))
    for row in range(2):
        scores = torch.tensor([model.score(row, prefix) for prefix in codes[1:].tolist()])
        torch.testing.assert_close(found.log_probs[row], scores.sort(descending=True).values)
        assert torch.equal(found.items[row], scores.argsort(descending=True) + 1)


def test_ties_are_different_items():
    codes = random_codes(30)
    found = beam_search(
        CodeTrie(codes, C), 12, lambda codes, parents: torch.zeros((2, 1 if codes is None else codes.shape[1], C))
    )
    assert (found.log_probs == 0).all() and all(len(set(row)) == 12 and min(row) > 0 for row in found.items.tolist())


def test_fewer_items_than_beams():
    codes = random_codes(3)
    found = beam_search(CodeTrie(codes, C), 5, TableModel(batch=2), torch.tensor([[0], [2]]))
    assert found.items[:, 3:].eq(0).all() and found.log_probs[:, 3:].eq(-torch.inf).all()
    assert sorted(found.items[0].tolist()) == [0, 0, 1, 2, 3] and sorted(found.items[1].tolist()) == [0, 0, 0, 1, 3]
    nothing = beam_search(CodeTrie(codes, C), 2, TableModel(batch=2), torch.tensor([[1, 2, 3], [0, 0, 0]]))
    assert nothing.items[0].tolist() == [0, 0] and nothing.items[1].gt(0).all()


def test_no_beam_goes_to_a_prefix_of_excluded_items_only():
    codes = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [2, 0]])

    def likes_small_codes(codes, parents):
        return torch.arange(0, -C, -1.0).expand(1, 1 if codes is None else codes.shape[1], C)

    trie = CodeTrie(codes, C)
    assert beam_search(trie, 1, likes_small_codes, torch.tensor([[1]])).items.item() == 2
    assert beam_search(trie, 1, likes_small_codes, torch.tensor([[1, 2]])).items.item() == 3
    assert beam_search(trie, 2, likes_small_codes, torch.tensor([[2, 1]])).items.tolist() == [[3, 4]]


# groups


def diverse_beams_of_lists(model, row, width, groups, penalty, tuples):
    """Log-probabilities and tuples of all groups, best first: greedy over levels, then groups, then beams."""
    depth = len(model.tables)
    alive = [[()] for _ in range(groups)]
    for level in range(depth):
        times = [0] * C
        for group in range(groups):
            grown = {prefix[: level + 1] for prefix in tuples if prefix[:level] in alive[group]}
            alive[group] = sorted(grown, key=lambda prefix: penalty * times[prefix[-1]] - model.score(row, prefix))
            alive[group] = alive[group][: width // groups]
            for prefix in alive[group]:
                times[prefix[-1]] += 1
    return sorted(((model.score(row, prefix), prefix) for group in alive for prefix in group), reverse=True)


EVERYTHING = [tuple(row) for row in torch.cartesian_prod(*[torch.arange(C)] * 3).tolist()]


@pytest.mark.parametrize("width, groups, penalty", [(6, 2, 0.5), (6, 3, 2.0), (6, 6, 1.0), (20, 4, 0.3), (24, 2, 50.0)])
def test_groups_are_those_of_lists(width, groups, penalty):
    model = TableModel(batch=4)
    found = diverse_beam_search(AllTuples(3, C), width, TableModel(batch=4), groups, penalty)
    for row in range(4):
        wanted = diverse_beams_of_lists(model, row, width, groups, penalty, EVERYTHING)
        torch.testing.assert_close(found.log_probs[row], torch.tensor([score for score, _ in wanted]))
        assert sorted(map(tuple, found.codes[row].tolist())) == sorted(prefix for _, prefix in wanted)
        for codes, score in zip(found.codes[row].tolist(), found.log_probs[row].tolist()):
            assert model.score(row, tuple(codes)) == pytest.approx(score, abs=1e-5)
    assert (found.log_probs.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("n_items", [8, 60])
def test_groups_along_a_trie_are_those_of_lists(n_items):
    codes = random_codes(n_items)
    model, tuples = TableModel(batch=4), [tuple(row) for row in codes[1:].tolist()]
    found = diverse_beam_search(CodeTrie(codes, C), 12, TableModel(batch=4), 3, 1.5)
    for row in range(4):
        wanted = diverse_beams_of_lists(model, row, 12, 3, 1.5, tuples)
        real = found.log_probs[row] > -torch.inf
        assert sorted(map(tuple, found.codes[row][real].tolist())) == sorted(prefix for _, prefix in wanted)


def test_one_group_is_the_plain_beam():
    codes = random_codes(100)
    trie = CodeTrie(codes, C)
    plain, found = (
        beam_search(trie, 15, TableModel(batch=3)),
        diverse_beam_search(trie, 15, TableModel(batch=3), 1, 3.0),
    )
    torch.testing.assert_close(found.log_probs, plain.log_probs)
    assert torch.equal(trie.items[found.nodes], plain.items) and torch.equal(codes[plain.items], found.codes)


def test_without_a_penalty_all_groups_find_the_same():
    one = diverse_beam_search(AllTuples(3, C), 4, TableModel(batch=3))
    three = diverse_beam_search(AllTuples(3, C), 12, TableModel(batch=3), groups=3)
    torch.testing.assert_close(three.log_probs, one.log_probs.repeat_interleave(3, dim=1))
    assert torch.equal(three.codes, one.codes.repeat_interleave(3, dim=1))


def test_a_penalty_makes_groups_differ():
    def first_codes(penalty):
        found = diverse_beam_search(AllTuples(3, C), 6, TableModel(batch=8), 6, penalty)
        return sum(len(row[:, 0].unique()) for row in found.codes) / 8

    assert first_codes(0.0) == 1 and first_codes(100.0) == 6


def test_all_tuples_are_found_by_a_beam_as_wide():
    model = TableModel(batch=2)
    found = diverse_beam_search(AllTuples(3, C), C**3, TableModel(batch=2))
    for row in range(2):
        assert sorted(map(tuple, found.codes[row].tolist())) == EVERYTHING
        best = max(EVERYTHING, key=lambda prefix: model.score(row, prefix))
        assert tuple(found.codes[row, 0].tolist()) == best


@pytest.mark.parametrize("groups", [0, 4, 7])
def test_groups_share_the_beams_evenly(groups):
    with pytest.raises(ValueError, match=f"{groups} groups cannot share 6 beams"):
        diverse_beam_search(AllTuples(3, C), 6, TableModel(batch=1), groups)
