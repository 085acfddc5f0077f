"""RecBole's splits: as in RecBole or refused in a line, without a lost interaction or a recommended item of the
history."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from recbole_contrec.data.interactions import Interactions
from recbole_contrec.data.loading import load_data
from recbole_contrec.data.windows import NEXT_PREFIX
from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import assemble, load_data_and_model, run
from recbole_contrec.recommendation import recommend, whole_histories

PARTS, TARGETS = ("valid", "test"), NEXT_PREFIX + "item_id_list"
SPLITS = [
    "{'split': {'RS': [0.8, 0.1, 0.1]}, 'group_by': 'none'}",
    "{'split': {'RS': [0.6, 0.2, 0.2]}, 'group_by': 'user'}",
    "{'split': {'TS': [0.7, 0.1, 0.2]}}",
    "{'split': {'LS': 'valid_and_test'}}",
    "{'split': {'LS': 'test_only'}}",
    "{'split': {'RS': [0.8, 0.0, 0.2]}, 'group_by': 'none'}",
    "{'split': {'GTS': [9, 14.5]}}",
    "{'split': {'GTS': ['60%', '82.5%']}}",
]


def of_the_file(folder, name="tiny"):
    """Items of every user in order of time, read without RecBole."""
    events = [line.split("\t") for line in (folder / name / f"{name}.inter").read_text().splitlines()[1:]]
    histories = {}
    for user, item, *_ in sorted(events, key=lambda event: float(event[-1])):
        histories.setdefault(user, []).append(item)
    return histories


def named(data, histories):
    dataset = data.dataset
    return {
        str(dataset.id2token(dataset.uid_field, user)): list(dataset.id2token(dataset.iid_field, items))
        for user, items in histories.items()
    }


@pytest.mark.parametrize("model", ["SASRec", "SASRecAll", "BPR"])
@pytest.mark.parametrize("split", SPLITS)
def test_splits_as_in_recbole(config_of, tiny, model, split):
    """Every interaction is in one part (of rows, but for the first of a history), and the whole history is known."""
    data = load_data(config_of(model, f"--eval_args={split}"))
    assert named(data, data.dataset.all_interactions.by_user()) == of_the_file(tiny)
    rows = sum(len(part.dataset.inter_feat) for part in (data.train, data.valid, data.test))
    events = len(data.dataset.all_interactions.items)
    if model == "SASRecAll":  # whole histories, first events included
        rows -= len(data.train.histories.users)
    assert rows == (events if model == "BPR" else events - (data.dataset.user_num - 1))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("arguments", [(), ("--MAX_ITEM_LIST_LENGTH=4", "--unused_col={'inter': ['timestamp']}")])
def test_whole_histories_are_split_as_the_rows_of_recbole(config_of, tiny, split, arguments):
    """The same rows of validation and test, bit for bit and in the same order, and the same training targets; some
    users come late, or with one event before a moment."""
    with open(tiny / "tiny/tiny.inter", "a") as file:
        file.writelines(f"late\ti{item}\t5\t{12 + item}\n" for item in (1, 2, 4, 6, 9))
        file.writelines(f"rare\ti{item}\t5\t{time}\n" for item, time in ((7, 2), (9, 20), (9, 20), (3, 22)))
    ours, theirs = (load_data(config_of(model, f"--eval_args={split}", *arguments)) for model in ("ContRec", "SASRec"))
    for our_rows, their_rows in ((getattr(data, part).dataset.inter_feat for data in (ours, theirs)) for part in PARTS):
        assert len(our_rows) == len(their_rows) and {*our_rows.interaction} == {*their_rows.interaction}
        whole = our_rows[np.arange(len(our_rows))]
        assert all(torch.equal(whole[field], their_rows[field]) for field in their_rows.interaction)
    rows = theirs.train.dataset.inter_feat
    wanted = Counter(zip(rows["user_id"].tolist(), rows["item_id"].tolist()))
    found = Counter()
    for batch in ours.train:
        users, targets = batch["user_id"][:, None].expand_as(batch[TARGETS]), batch[TARGETS]
        found.update(zip(users[targets > 0].tolist(), targets[targets > 0].tolist()))
    assert found == wanted and ours.train.n_targets == sum(wanted.values())
    # what vectors and popularity are computed from, is what RecBole's matrix of its rows has
    ones = ours.train.dataset.inter_matrix("csr"), theirs.train.dataset.inter_matrix("csr")
    assert (ones[0] != ones[1]).nnz == 0 and ones[0].sum() == len(ours.train.histories.items)
    assert ours.dataset.held_out == theirs.dataset.held_out


def test_random_order_is_for_models_without_one(config_of, tiny):
    data = load_data(config_of("BPR", "--eval_args={'split': {'RS': [0.8, 0.1, 0.1]}, 'order': 'RO'}"))
    assert named(data, data.dataset.all_interactions.by_user()) == of_the_file(tiny)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_a_recommendation_leaves_the_whole_history_out(config_of, tiny, model):
    """Somebody all of whose interactions come after the cut, with the first item in no target."""
    with open(tiny / "tiny/tiny.inter", "a") as file:
        file.writelines(f"late\ti{item}\t5\t{100 + item}\n" for item in (2, 4, 6, 9, 11))
    config = config_of(model, "--eval_args={'split': {'RS': [0.8, 0.1, 0.1]}, 'group_by': 'none'}")
    loaded = assemble(config, load_data(config))
    assert named(loaded.data, whole_histories(loaded))["late"] == ["i2", "i4", "i6", "i9", "i11"]
    table = recommend(loaded, users=["late"], k=60)
    assert len(table) and not {"i2", "i4", "i6", "i9", "i11"} & set(table["item_id"])


def test_histories_are_the_same_whoever_splits(config_of):
    ours = load_data(config_of("ContRec"))
    theirs = load_data(config_of("SASRec"))
    assert named(ours, ours.dataset.all_interactions.by_user()) == named(
        theirs, theirs.dataset.all_interactions.by_user()
    )
    train = ours.train_dataset.histories
    for user, items in ours.dataset.all_interactions.by_user().items():
        place = list(train.users).index(user)
        kept = train.items[train.offsets[place] : train.offsets[place + 1]]
        assert np.array_equal(kept, items[: len(kept)])


@pytest.mark.parametrize(
    "model, arguments, text",
    [
        ("SASRec", ["--eval_args={'order': 'RO'}"], "SASRec reads histories in order of time"),
        ("ContRec", ["--eval_args={'order': 'RO'}"], "ContRec reads histories in order of time"),
        ("SIIT", ["--eval_args={'split': {'RS': [8, 1, 1]}, 'order': 'RO'}"], "SIIT reads histories in order of time"),
        ("ContRec", ["--eval_args={'split': {'LS': 'test_only'}, 'group_by': 'none'}"], "always cuts the history"),
        ("BPR", ["--eval_args={'split': {'GTS': [9, 15]}, 'order': 'RO'}"], "leave order at TO"),
        ("BPR", ["--eval_args={'split': {'TS': [0.8, 0.1, 0.1]}, 'order': 'RO'}"], "leave order at TO"),
        ("BPR", ["--eval_args={'group_by': 'none'}"], "always cuts the history of every user"),
        ("BPR", ["--mask_seen=False", "--eval_args={'mode': {'test': 'uni20'}}"], "ranks the whole catalogue"),
        ("ContRec", ["--benchmark_filename=['train', 'valid', 'test']"], "splits whole histories itself"),
        (
            "BPR",
            ["--benchmark_filename=['train', 'valid', 'test']", "--val_interval={'rating': '[3,inf)'}"],
            "val_interval would do nothing",
        ),
        (
            "BPR",
            ["--benchmark_filename=['train', 'valid', 'test']", "--eval_args={'order': 'RO'}"],
            "eval_args.order would do nothing",
        ),
        ("BPR", ["--benchmark_filename=['train', 'test']"], "three parts"),
    ],
)
def test_what_a_model_cannot_be_split_by_is_refused_with_its_name(config_of, tiny, model, arguments, text):
    for part in ("train", "valid", "test"):
        (tiny / f"tiny/tiny.{part}.inter").write_text((tiny / "tiny/tiny.inter").read_text())
    with pytest.raises(UserError) as caught:
        config_of(model, *arguments)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_that_is_empty_is_refused(config_of, tiny):
    lines = (tiny / "tiny/tiny.inter").read_text().splitlines()
    (tiny / "tiny/tiny.inter").write_text(
        "\n".join([lines[0], *(f"{line.rpartition(chr(9))[0]}\t7" for line in lines[1:])]) + "\n"
    )
    with pytest.raises(UserError, match="leaves nothing for the test"):
        load_data(config_of("BPR", "--eval_args={'split': {'TS': [0.8, 0.1, 0.1]}}"))


def test_repeatable(config_of, assembled):
    seen = {}
    for repeatable in (True, False):
        loaded = assembled("BPR", f"--repeatable={repeatable}")
        seen[repeatable] = sum(len(history[0]) for _, history, *_ in loaded.data.test)
    assert seen[True] == 0 < seen[False]  # items of the history that are left out of the ranking
    with pytest.raises(UserError, match="repeatable"):
        config_of("SASRec", "--repeatable=False")


# data that come split


def cut(folder, lists=True, list_type="token_seq"):
    """The last two of every history apart, with the history of every row in a column."""
    rows = {"train": [], "valid": [], "test": []}
    for user, items in of_the_file(folder).items():
        for place in range(1, len(items)):
            part = {1: "test", 2: "valid"}.get(len(items) - place, "train")
            rows[part].append(
                [user, items[place], str(place), *([" ".join(items[max(0, place - 10) : place])] if lists else [])]
            )
    header = ["user_id:token", "item_id:token", "timestamp:float", *([f"item_id_list:{list_type}"] if lists else [])]
    for part, lines in rows.items():
        (folder / f"tiny/tiny.{part}.inter").write_text("\n".join("\t".join(row) for row in [header, *lines]) + "\n")
    return {part: len(lines) for part, lines in rows.items()}


SPLIT = "--benchmark_filename=['train', 'valid', 'test']"


def test_data_that_come_split_need_no_times(workplace):
    """RecBole's own form for sessions: the history, and what came next."""
    folder = workplace / "data" / "sessions"
    folder.mkdir(parents=True)
    for part in ("train", "valid", "test"):
        rows = "".join(f"u{user}\ti{user % 7} i{user % 5 + 7}\ti{(user + len(part)) % 12}\n" for user in range(24))
        (folder / f"sessions.{part}.inter").write_text(f"user_id:token\titem_id_list:token_seq\titem_id:token\n{rows}")
    columns = "--load_col={'inter': ['user_id', 'item_id_list', 'item_id']}"
    for arguments in ((), (columns, "--alias_of_item_id=['item_id_list']")):
        result = run(
            "SASRec",
            "sessions",
            arguments=[
                "--data_path=data",
                "--epochs=1",
                "--use_gpu=False",
                "--topk=[5]",
                "--valid_metric=NDCG@5",
                SPLIT,
                *arguments,
            ],
        )
        assert len(recommend(load_data_and_model(result["checkpoint"]), users=["u3"], k=5)) == 5
        assert result["card"]["split"] == {"files": ["train", "valid", "test"]}
        assert result["card"]["order"] == "as in the files"


def test_auc_needs_both_labels(run_tiny):
    clicks = ("--eval_args={'mode': 'labeled'}", "--metrics=['AUC']", "--valid_metric=AUC")
    with pytest.raises(UserError, match="has 1 only: set another --threshold"):
        run_tiny("DeepFM", "--threshold={'rating': 0}", *clicks)
    assert 0 <= run_tiny("DeepFM", "--threshold={'rating': 3}", *clicks)["test_result"]["auc"] <= 1


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_data_that_come_split(config_of, tiny, model):
    sizes = cut(tiny)
    config = config_of(model, SPLIT)
    loaded = assemble(config, load_data(config))
    data = loaded.data
    assert [len(part.dataset.inter_feat) for part in (data.train, data.valid, data.test)] == list(sizes.values())
    known, whole = named(data, whole_histories(loaded)), of_the_file(tiny)
    for user in known:
        if model == "SASRec":
            assert set(known[user]) == set(whole[user])
            last = [item for item in known[user]][-min(5, len(known[user])) :]
            assert last == whole[user][-len(last) :]
    if model == "SASRec":  # one numbering for items and histories
        row = data.test.dataset.inter_feat[0]
        user, length = int(row["user_id"]), int(row["item_length"])
        items = data.dataset.id2token("item_id", row["item_id_list"][:length].numpy())
        assert list(items) == whole[str(data.dataset.id2token("user_id", user))][:-1][-length:]


@pytest.mark.parametrize(
    "lists, arguments, text",
    [
        (False, [], "column item_id_list:token_seq"),
        ("token", [], "it is item_id_list:token"),
        (True, ["--MAX_ITEM_LIST_LENGTH=3"], "set --MAX_ITEM_LIST_LENGTH=10"),
        (
            True,
            ["--alias_of_item_id=[]", "--load_col={'inter': ['user_id', 'item_id', 'timestamp', 'item_id_list']}"],
            "numbered apart from item_id",
        ),
    ],
)
def test_histories_that_lack_are_named(config_of, tiny, lists, arguments, text):
    cut(tiny, bool(lists), lists if isinstance(lists, str) else "token_seq")
    with pytest.raises(UserError) as caught:
        load_data(config_of("SASRec", SPLIT, *arguments))
    assert text in str(caught.value)


def test_pickled_data_are_not_read(config_of, tiny, tmp_path):
    """RecBole loads a file of this name from checkpoint_dir whenever there is one."""

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickled file was read",))

    (tmp_path / "saved").mkdir()
    for name in ("tiny-SequentialDataset.pth", "tiny-for-SASRec-dataloader.pth"):
        (tmp_path / "saved" / name).write_bytes(pickle.dumps(Trap()))
    load_data(config_of("SASRec"))


def test_whole_histories_from_rows():
    rows = Interactions._from_rows(
        np.array([1, 2, 1]), np.array([5, 9, 7]), [np.array([4, 6]), np.array([8]), np.array([6, 5])]
    )
    assert {user: items.tolist() for user, items in rows.by_user().items()} == {1: [4, 6, 5, 7], 2: [8, 9]}


def test_items_of_a_user_are_cut_out_when_asked_for():
    users = np.array([5, 2, 5, 9, 2])
    by_user = Interactions(users, np.array([1, 2, 3, 4, 5])).by_user()
    assert {user: items.tolist() for user, items in by_user.items()} == {2: [2, 5], 5: [1, 3], 9: [4]}
    assert list(by_user) == [2, 5, 9] and len(by_user) == 3 and 3 not in by_user and 10 not in by_user
    assert by_user.get(1) is None and np.shares_memory(by_user[2], by_user[9].base)
    ordered = Interactions(np.sort(users), np.array([1, 2, 3, 4, 5]))
    assert np.shares_memory(ordered.by_user()[5], ordered.items)
