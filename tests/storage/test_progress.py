"""What a trainer counts is written and read back as one object, and a field is named in one place."""

import json
from dataclasses import dataclass, field

import pytest

from recbole_contrec.storage.json_types import LATER, Count, built, mismatch
from recbole_contrec.storage.progress import CurvePoint, FinishedStage, Progress

AFTER_TWO_EPOCHS = Progress(
    cur_step=1,
    best_valid_score=0.25,
    best_valid_result={"ndcg@10": 0.25},
    best_epoch=0,
    epoch_seconds=[1.5, 1.25],
    training_seconds=3.5,
    core_seconds=7.0,
    curve=[CurvePoint(0, 1.75, 3.5, 0.25), CurvePoint(1, 3.5, 7.0, 0.2)],
    train_loss={0: 4.5, 1: [4.0, 0.5]},
    stages={"item vectors": FinishedStage(0.5, True, {"method": "svd"}, {"seed": 1})},
    refinements=[{"epoch": 1, "kept": False}],
)


def through_json(progress):
    record = json.loads(json.dumps(progress.to_record(), allow_nan=False))
    assert mismatch(record, type(progress)) is None
    return type(progress).from_record({**record, "model": "ContRec"})


@pytest.mark.parametrize("progress", [Progress(), AFTER_TWO_EPOCHS], ids=["before", "after"])
def test_progress_comes_back_from_json(progress):
    found = through_json(progress)
    assert found == progress and list(found.train_loss) == list(progress.train_loss)
    assert [type(point) for point in found.curve] == [CurvePoint] * len(found.curve)
    assert found.to_record() is not progress.to_record() and found.curve is not progress.curve


def test_a_record_is_a_copy():
    progress = Progress()
    record = progress.to_record()
    progress.refinements.append({"epoch": 1})
    progress.epoch_seconds.append(1.0)
    assert record["refinements"] == [] and record["epoch_seconds"] == []


@pytest.mark.parametrize(
    "key, value, problem",
    [
        ("cur_step", -1, "cur_step is no whole number of at least 0"),
        ("best_epoch", -2, "best_epoch is no number of an epoch"),
        ("curve", [[0, 1.0, 2.0]], "curve[0] is no list of 4"),
        ("curve", [[0, 1.0, 2.0, "a"]], "curve[0][3] is no number"),
        ("train_loss", {"first": 1.0}, "a key of its record.train_loss is no whole number"),
        ("train_loss", {"0": None}, "train_loss.0 is no number"),
        ("stages", {"tokenizer": {"seconds": 1.0, "report": {}}}, "stages.tokenizer has no found_on_disk"),
        ("refinements", {}, "refinements is no list"),
    ],
)
def test_what_is_no_progress_is_refused(key, value, problem):
    record = json.loads(json.dumps(AFTER_TWO_EPOCHS.to_record()))
    assert problem in mismatch({**record, key: value}, Progress)


def test_files_of_earlier_versions_lack_what_came_later():
    record = json.loads(json.dumps(AFTER_TWO_EPOCHS.to_record()))
    del record["refinements"]
    assert mismatch(record, Progress) is None and Progress.from_record(record).refinements == []
    del record["curve"]
    assert mismatch(record, Progress) == "its record has no curve"


@dataclass
class More(Progress):
    """With a field that one line adds."""

    restarts: dict[int, Count] = field(default_factory=dict, metadata=LATER)


def test_a_new_field_is_saved_checked_and_restored():
    assert through_json(More(restarts={3: 1})).restarts == {3: 1}
    assert through_json(More()).restarts == {}
    assert mismatch({**Progress().to_record(), "restarts": {"3": -1}}, More).endswith(
        "restarts.3 is no whole number of at least 0"
    )


def test_a_type_that_json_does_not_have_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="set"):
        mismatch([1], set[int])
    assert built([1, "a"], tuple[int, str]) == (1, "a")
