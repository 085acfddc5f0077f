"""All positions in one pass: the same targets as RecBole's rows, each once; validation and test rows untouched."""

from collections import Counter

import numpy as np
import pytest
import torch

from recbole_contrec.data.windows import NEXT_PREFIX, cut_windows
from recbole_contrec.errors import UserError


def counted_positions(windows, offsets):
    """Flat positions of all targets, as often as windows count them."""
    return Counter(
        position + 1
        for start, length, context in zip(windows.start, windows.length, windows.context)
        for position in range(start + context, start + length)
    )


@pytest.mark.parametrize("context", [0, 1, 4])
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_every_target_of_long_and_short_histories_counts_once(seed, context):
    lengths = np.array([1, 2, 3, 5, 6, 7, 11, 23, 100])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rng = None if seed is None else np.random.default_rng(seed)
    windows = cut_windows(offsets, size=5, context=context, rng=rng)
    wanted = Counter(p for first, last in zip(offsets, offsets[1:]) for p in range(first + 1, last))
    assert counted_positions(windows, offsets) == wanted
    assert windows.length.max() <= 5 and windows.length.min() >= 1
    # a window never leaves its history
    assert (windows.start >= offsets[windows.history]).all()
    assert (windows.start + windows.length < offsets[windows.history + 1]).all()


def test_later_windows_carry_the_context_that_was_asked_for():
    windows = cut_windows(np.array([0, 30]), size=8, context=3, rng=np.random.default_rng(0))
    assert windows.context[0] == 0 and (windows.context[1:] == 3).all()


def test_cuts_move_between_epochs():
    offsets = np.array([0, 40])
    starts = {tuple(cut_windows(offsets, 8, 0, np.random.default_rng(seed)).start) for seed in range(20)}
    assert len(starts) > 3


def test_validation_and_test_rows_are_those_of_recbole(config_of):
    from recbole.data import create_dataset, data_preparation

    from recbole_contrec.data.loading import load_data

    ours = load_data(config_of("ContRec"))
    theirs_config = config_of("SASRec")
    theirs = data_preparation(theirs_config, create_dataset(theirs_config))
    for our_loader, their_loader in zip((ours.valid, ours.test), theirs[1:]):
        batches = list(zip(our_loader, their_loader))
        assert batches
        for (our_rows, _, _, our_items), (their_rows, _, _, their_items) in batches:
            assert set(their_rows.interaction) <= set(our_rows.interaction)
            for field in their_rows.interaction:
                assert torch.equal(our_rows[field], their_rows[field]), field
            assert torch.equal(our_items, their_items)


def test_training_targets_are_those_of_recbole(config_of):
    """Same (user, target) pairs as RecBole's prefix rows, also for histories longer than L."""
    from recbole.data import create_dataset, data_preparation

    from recbole_contrec.data.loading import load_data

    theirs_config = config_of("SASRec", "--MAX_ITEM_LIST_LENGTH=6", "--shuffle=False")
    rows = data_preparation(theirs_config, create_dataset(theirs_config))[0].dataset.inter_feat
    wanted = Counter(zip(rows["user_id"].tolist(), rows["item_id"].tolist()))

    loader = load_data(config_of("ContRec", "--MAX_ITEM_LIST_LENGTH=6")).train
    for _ in range(2):
        found = Counter()
        for batch in loader:
            targets = batch[NEXT_PREFIX + "item_id_list"]
            users = batch["user_id"][:, None].expand_as(targets)
            found.update(zip(users[targets > 0].tolist(), targets[targets > 0].tolist()))
        assert found == wanted
    assert sum(wanted.values()) == loader.n_targets


def test_a_target_is_the_item_after_its_position(config_of):
    from recbole_contrec.data.loading import load_data

    for batch in load_data(config_of()).train:
        items, targets = batch["item_id_list"], batch[NEXT_PREFIX + "item_id_list"]
        inside = (targets[:, :-1] > 0) & (items[:, 1:] > 0)
        assert inside.any() and torch.equal(targets[:, :-1][inside], items[:, 1:][inside])
        assert ((items > 0).sum(1) == batch["item_length"]).all()


def test_batches_count_every_target_once_whatever_the_context(config_of):
    from recbole_contrec.data.loading import load_data

    def targets(context):
        loader = load_data(config_of("ContRec", "--MAX_ITEM_LIST_LENGTH=6", f"--window_context={context}")).train
        loader.set_epoch(3)
        return Counter(
            pair
            for batch in loader
            for user, row in zip(batch["user_id"].tolist(), batch[NEXT_PREFIX + "item_id_list"].tolist())
            for pair in ((user, item) for item in row if item)
        )

    assert targets(0) == targets(3)


def test_order_depends_on_seed_and_epoch_alone(config_of):
    from recbole_contrec.data.loading import load_data

    def batches(loader, epoch):
        loader.set_epoch(epoch)
        return [batch["item_id_list"].tolist() for batch in loader]

    first, second = load_data(config_of()).train, load_data(config_of()).train
    list(first)  # epoch 0 of one loader has gone by
    assert batches(first, 3) == batches(second, 3)
    assert batches(second, 3) != batches(second, 4)
    other = load_data(config_of("ContRec", "--seed=7")).train
    assert batches(other, 3) != batches(second, 3)


def test_windows_move_from_epoch_to_epoch_unless_they_shall_not(config_of):
    from recbole_contrec.data.loading import load_data

    def windows(epoch, *settings):
        loader = load_data(config_of("ContRec", "--MAX_ITEM_LIST_LENGTH=6", *settings)).train
        loader.set_epoch(epoch)
        return sorted(
            row[:length]
            for batch in loader
            for row, length in zip(batch["item_id_list"].tolist(), batch["item_length"].tolist())
        )

    assert windows(1) != windows(2)
    assert windows(1, "--window_shift=False") == windows(2, "--window_shift=False")


def test_batches_hold_about_the_number_of_targets_asked_for(config_of):
    from recbole_contrec.data.loading import load_data

    loader = load_data(config_of("ContRec", "--train_batch_size=60")).train
    sizes = [int((batch[NEXT_PREFIX + "item_id_list"] > 0).sum()) for batch in loader]
    assert len(sizes) == len(loader) == round(loader.n_targets / 60)
    assert max(sizes) - min(sizes) <= 2 * 10  # L = 10


def test_training_matrix_holds_training_pairs_only(config_of):
    from recbole_contrec.data.loading import load_data

    data = load_data(config_of())
    matrix = data.train.dataset.inter_matrix(form="csr")
    users, items = data.train.dataset.histories.pairs()
    assert matrix.sum() == len(users) and (matrix[users, items] > 0).all()


def test_short_histories_are_refused(workplace, config_of, tiny):
    with open(tiny / "tiny" / "tiny.inter", "a") as file:
        file.write("short\ti1\t1\t0\nshort\ti2\t1\t1\n")
    from recbole_contrec.data.loading import load_data

    for model in ("ContRec", "SASRec"):
        with pytest.raises(UserError, match="fewer than three"):
            load_data(config_of(model))
    with pytest.raises(UserError, match=r"fewer than three interactions: 1 .*'short' has 2.*user_inter_num_interval"):
        load_data(config_of())
    assert load_data(config_of("ContRec", "--user_inter_num_interval=[3,inf)")).dataset.user_num == 41


def test_context_must_be_smaller_than_the_window(config_of):
    from recbole_contrec.data.loading import load_data

    with pytest.raises(UserError, match="window_context=10 must be smaller"):
        load_data(config_of("ContRec", "--window_context=10"))


def _held_out(config_of, *settings):
    """Our rows of the test, and RecBole's."""
    from recbole.data import create_dataset, data_preparation

    from recbole_contrec.data.loading import load_data

    theirs_config = config_of("SASRec", *settings)
    theirs = data_preparation(theirs_config, create_dataset(theirs_config))[2].dataset.inter_feat
    return load_data(config_of("ContRec", *settings)).test.dataset.inter_feat, theirs


def _same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for field in theirs.interaction:
        assert ours[field].dtype == theirs[field].dtype and torch.equal(ours[field], theirs[field]), field


@pytest.mark.parametrize("length", [3, 50])
def test_held_out_rows_are_cut_sorted_and_dropped_from_as_those_of_recbole(config_of, length):
    ours, theirs = _held_out(config_of, f"--MAX_ITEM_LIST_LENGTH={length}")
    _same(ours, theirs)
    for choice in (slice(3, 9), [4, 4, 1], np.array([7, 0]), torch.tensor([2, 5])):
        _same(ours[choice], theirs[choice])
    _same(ours[2:20][3:9], theirs[5:11])
    assert dict(ours[:4].interaction.items()).keys() >= theirs[:4].interaction.keys()
    for rows in (ours, theirs):
        rows.sort(by="item_id")
    _same(ours, theirs)
    _same(ours[:6], theirs[:6])
    ours.drop("item_id_list")
    assert "item_id_list" not in ours and "item_id_list" not in ours[:2] and "item_id_list" not in ours[[1]]


def test_held_out_histories_are_made_for_a_batch_alone(config_of):
    ours, _ = _held_out(config_of, "--MAX_ITEM_LIST_LENGTH=50")
    held = [value for value in vars(ours).values() if isinstance(value, torch.Tensor)]
    held += [value for value in dict.values(ours.interaction) if value is not None]
    assert max(value.numel() for value in held) == len(ours)  # no column of L places a row
    assert ours["item_id_list"].shape == (len(ours), 50) and ours[:7].interaction["item_id_list"].shape == (7, 50)


def test_full_rankings_build_no_sampler(config_of, monkeypatch):
    from recbole_contrec.data import loading

    made, create = [], loading.create_samplers
    monkeypatch.setattr(loading, "create_samplers", lambda *given: made.append(1) or create(*given))
    loading.load_data(config_of())
    assert not made
    loading.load_data(config_of("ContRec", "--eval_args={'mode': {'valid': 'full', 'test': 'uni20'}}"))
    assert made
