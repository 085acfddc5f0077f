"""A split at two moments in time: what is before, between and after them, what is left out, and what is refused."""

import numpy as np
import pytest

from recbole_contrec.data.loading import load_data
from recbole_contrec.data.moments import moments_of, share_of
from recbole_contrec.errors import UserError
from recbole_contrec.fold_in import fold_in_interactions
from recbole_contrec.quick_start import load_data_and_model, run
from recbole_contrec.recommendation import recommend, whole_histories
from recbole_contrec.training.card import protocol_facts
from recbole_contrec.training.log import data_line

MODELS = ["SASRec", "SASRecAll", "BPR"]
EVENTS = [  # user, item, time; the moments are 5 and 8
    *[("old", f"i{item}", time) for item, time in ((1, 0), (2, 1), (3, 4.99), (4, 5), (1, 7.99), (9, 8), (5, 9))],
    *[("both", f"i{item}", time) for item, time in ((2, 2), (3, 3), (3, 9))],
    *[("once", f"i{item}", time) for item, time in ((6, 4), (2, 6), (6, 8))],  # no training row
    *[("new", f"i{item}", time) for item, time in ((1, 5), (2, 5), (8, 8))],  # begins at the moment
    *[("last", f"i{item}", time) for item, time in ((4, 8), (2, 10))],
    ("alone", "i1", 6),
]
COUNTS = {"SASRec": (4, 6), "SASRecAll": (4, 6), "BPR": (6, 7)}  # targets


@pytest.fixture
def events(shop, load):
    """Write events into a data set, and a function (model, split, *arguments) -> RunData."""

    def start(model, split, *arguments, rows=EVENTS):
        lines = [f"{user}|{item}|{time}" for user, item, time in rows]
        if not start.written:
            shop("events", "user_id:token|item_id:token|timestamp:float", lines)
            start.written = True
        return load(model, "events", f"--eval_args={{'split': {{'GTS': {split}}}}}", *arguments)

    start.written = False
    return start


def targets(data, part):
    """(user, item) of every target, in order."""
    dataset, rows = data.dataset, getattr(data, part).dataset.inter_feat
    names = [dataset.id2token(field, rows[field].numpy()) for field in (dataset.uid_field, dataset.iid_field)]
    return list(zip(*([str(name) for name in column] for column in names)))


@pytest.mark.parametrize("model", ["SASRec", "SASRecAll"])
def test_every_event_is_predicted_from_all_that_came_before_it(events, model):
    data = events(model, [5, 8])
    dataset = data.dataset
    assert targets(data, "valid") == [("old", "i4"), ("new", "i2"), ("once", "i2"), ("old", "i1")]
    wanted = [("old", "i9"), ("once", "i6"), ("new", "i8"), ("old", "i5"), ("both", "i3"), ("last", "i2")]
    assert targets(data, "test") == wanted
    rows = data.test.dataset.inter_feat[np.arange(6)]
    for (user, item), length, history in zip(
        targets(data, "test"), rows["item_length"].tolist(), rows["item_id_list"].numpy()
    ):
        own = [event[1] for event in EVENTS if event[0] == user]
        place = max(number for number, name in enumerate(own) if name == item)
        assert list(dataset.id2token("item_id", history[:length])) == own[:place]


def test_windows_hold_what_was_before_the_first_moment(events):
    histories = events("SASRecAll", [5, 8]).train.histories
    assert [len(part) for part in np.split(histories.items, histories.offsets[1:-1])] == [3, 2]  # old, both


@pytest.mark.parametrize("model", MODELS)
def test_what_training_knows_little_about_is_counted(events, model):
    data = events(model, [5, 8])
    found = data.dataset.held_out
    general = model == "BPR"
    assert found["valid"]._asdict() == {
        "targets": COUNTS[model][0],
        "cold_items": 1,  # i4 of old; i6, alone before the moment, is in no row of a sequential model
        "cold_users": 3 if general else 2,
        "without_history": None if general else 2,  # of new and alone
    }
    assert found["test"].targets == COUNTS[model][1]
    assert found["test"].cold_items == 4  # i9, i5, i8, and i4 of last or i6 of once
    assert found["test"].without_history == (None if general else 1)
    card, line = protocol_facts(data.dataset.config, data), data_line(data)
    assert card["split"] == {"GTS": [5.0, 8.0]} and card["held_out"]["valid"] == found["valid"]._asdict()
    assert "validation begins at 5, the test at 8; of validation, 1 are cold items" in line
    assert ("have no history" in line) is not general


def test_leave_one_out_says_nothing_more(config_of):
    data = load_data(config_of("SASRecAll"))
    assert data.dataset.held_out is None and "held_out" not in protocol_facts(data.dataset.config, data)
    assert data_line(data).endswith("test targets")


def test_shares_are_moments_before_which_so_many_events_happen(events):
    by_share = events("SASRec", ["40%", "60%"])  # of 19: the times of the 8th and the 12th, whatever has the same time
    assert by_share.dataset.moments[:2] == (5, pytest.approx(7.99)) and by_share.dataset.moments.moved == 0
    given = events("SASRec", [5, 7.99])
    assert all(targets(by_share, part) == targets(given, part) for part in ("valid", "test"))
    # whatever reads them: rows of a model have no part in it
    assert events("BPR", ["40%", "60%"]).dataset.moments[:2] == by_share.dataset.moments[:2]
    assert share_of("82.5%") == 0.825
    for wrong in ("0%", "100%", "0.8"):
        with pytest.raises(ValueError):
            share_of(wrong)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "split, part",
    [
        ([-3, 5], "training"),
        ([0, 5], "training"),
        ([5, 11], "test"),
        ([10.5, 12], "validation"),
        ([5.2, 5.8], "validation"),
        ([5, 5.00000001], "validation"),  # one moment in single precision
        ([880000000, 890000000], "validation"),
    ],
)
def test_a_part_in_which_nothing_happens_is_refused_with_the_range(events, model, split, part):
    with pytest.raises(UserError) as caught:
        events(model, split)
    text = str(caught.value)
    assert f"leaves nothing for the {part} of 'events'" in text and "(timestamp) go from 0 to 10" in text
    assert "\n" not in text and "normalize" not in text


@pytest.mark.parametrize("how", ["--normalize_all=True", "--normalize_field=['timestamp']"])
def test_times_that_are_normalised_are_said_to_be(events, how):
    with pytest.raises(UserError, match=r"go from 0 to 1, to which normalize_\w+ has brought them; shares"):
        events("SASRec", [5, 8], how)
    assert events("SASRec", [0.5, 0.8], how).dataset.held_out == events("SASRec", [5, 8]).dataset.held_out


def test_validation_without_a_history_is_refused(events):
    rows = [("a", "i1", 0), ("a", "i2", 1), ("b", "i1", 5), ("a", "i3", 8)]
    with pytest.raises(UserError, match="leaves nothing for the validation"):
        events("SASRec", [5, 8], "--topk=[2]", "--valid_metric=NDCG@2", rows=rows)


def test_single_precision_puts_nothing_of_the_future_into_training(events, caplog):
    """Today's times are 128 seconds apart: a moment among them takes what is shortly before it for itself."""
    start, rng = 1_700_000_000, np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{rng.integers(99)}", start + int(rng.integers(0, 6000))) for user in range(9) for _ in range(30)
    ]
    moments = [start + 3000, start + 4500]
    exact = np.array([time for *_, time in rows])
    data = {model: events(model, moments, rows=rows) for model in MODELS}
    parts = data["BPR"].dataset.moments.part_of(exact)
    assert (exact[parts == 0] < moments[0]).all() and (exact[parts < 2] < moments[1]).all()
    moved = sum(int((exact[parts > number] < moment).sum()) for number, moment in enumerate(moments))
    assert moved and data["BPR"].dataset.moments.moved == moved
    assert any(f"{moved} events shortly before a moment" in note for note in data["SASRec"].dataset.notes)
    assert data["SASRec"].dataset.held_out == data["SASRecAll"].dataset.held_out


def test_rows_that_come_split_have_no_moments(events, config_of):
    data = events("BPR", [5, 8])
    assert (
        moments_of({"eval_args": {"split": {"LS": "valid_and_test"}}, "benchmark_filename": None}, data.dataset) is None
    )


SPLIT = "--eval_args={'split': {'GTS': [9, 15]}}"


@pytest.mark.parametrize("model", ["SASRecAll", "BPR"])
def test_a_run_keeps_its_split(run_tiny, tiny, model):
    """Stopped and resumed, read again, and recommended from."""
    whole = run_tiny(model, SPLIT, "--epochs=2", "--run_name=whole")
    run_tiny(model, SPLIT, "--epochs=1", "--run_name=halves")
    resumed = run(resume="saved/halves", arguments=["--epochs=2"])
    assert resumed["test_result"] == whole["test_result"] and resumed["card"]["split"] == {"GTS": [9.0, 15.0]}
    assert resumed["card"]["held_out"] == whole["card"]["held_out"]
    loaded = load_data_and_model(whole["checkpoint"])
    assert loaded.config["eval_args"]["split"] == {"GTS": [9, 15]}
    assert loaded.data.dataset.held_out["test"]._asdict() == whole["card"]["held_out"]["test"]
    # a list leaves out all that somebody has had, that of the test as well
    user = str(loaded.data.dataset.id2token("user_id", 1))
    had = loaded.data.dataset.id2token("item_id", whole_histories(loaded)[1])
    assert not {*recommend(loaded, users=[user], k=20)["item_id"]} & {*had}


def test_an_item_that_comes_behind_the_moment_can_be_folded_in(run_tiny, tiny):
    """It is not in training, though it is in the data set; what was there before the moment is."""
    with open(tiny / "tiny/tiny.inter", "a") as file:
        file.writelines(f"u{user}\tcold\t5\t30\n" for user in range(4))
    result = run_tiny("ContRec", SPLIT, "--epochs=1")
    assert result["card"]["held_out"]["test"]["cold_items"] == 4
    loaded = load_data_and_model(result["checkpoint"])
    with pytest.raises(UserError, match="training"):
        fold_in_interactions(loaded, {"i7": ["u0", "u1"]})
    before = recommend(loaded, users=["u9"], k=60)
    fold_in_interactions(loaded, {"cold": ["u0", "u1", "u2"]})
    assert not before.equals(recommend(loaded, users=["u9"], k=60))
