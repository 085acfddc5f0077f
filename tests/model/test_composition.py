"""How models are put together: few classes above each, a loss that is read in few files, and what callers may ask."""

import importlib
import sys
from pathlib import Path

import pytest
from torch import nn

import recbole_contrec
from recbole_contrec import interface

PACKAGE = Path(recbole_contrec.__file__).parent
MODELS = {
    "ContRec": "contrec",
    "DeftRec": "deftrec",
    "TokenRec": "tokenrec",
    "TokenRecBeam": "tokenrec_beam",
    "TIGER": "tiger",
    "SASRecAll": "sasrec_all",
    "Pop": "pop",
}


@pytest.mark.parametrize("name, module", MODELS.items())
def test_at_most_four_classes_stand_before_a_module_of_torch(name, module):
    model = getattr(importlib.import_module(f"recbole_contrec.model.{module}"), name)
    before = model.__mro__[: model.__mro__.index(nn.Module)]
    assert len(before) <= 4, [found.__name__ for found in before]


def test_every_model_of_the_package_is_among_these():
    assert {path.stem for path in (PACKAGE / "model").glob("*.py")} - {"__init__"} == {*MODELS.values()}


class Opened:
    """The files of the package that a call leads into.

    Attributes:
        directly: files of the functions that the file of the model itself calls, this file among them.
        of_models: files of ``model/`` that are entered at any depth.
        all: every file of the package, the insides of the parts among them.
    """

    def __init__(self, model):
        self.own = sys.modules[type(model).__module__].__file__
        self.directly, self.all = {self.own}, set()

    def __enter__(self):
        self.before = sys.getprofile()
        sys.setprofile(self._entered)
        return self

    def __exit__(self, *_):
        sys.setprofile(self.before)

    def _entered(self, frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(PACKAGE)):
            self.all.add(path)
            if self._caller(frame) == self.own:
                self.directly.add(path)

    @staticmethod
    def _caller(frame) -> str | None:
        """The file of the package that made a call, with PyTorch's ``__call__`` in between left out."""
        frame = frame.f_back
        while frame is not None and not frame.f_code.co_filename.startswith(str(PACKAGE)):
            frame = frame.f_back
        return None if frame is None else frame.f_code.co_filename

    @property
    def of_models(self):
        return {path for path in self.all if path.startswith(str(PACKAGE / "model"))}


@pytest.mark.parametrize(
    "model, arguments, most_of_models",
    [
        ("ContRec", (), 5),
        ("ContRec", ("--answer_weight=0.3", "--text_bonus=0.1", "--vocabulary_size=300"), 7),
        ("TokenRec", (), 6),
    ],
)
def test_a_loss_and_a_ranking_are_followed_through_five_files(staged, model, arguments, most_of_models):
    """The file of the model and those of the parts that it calls. How a part works inside is not counted, but for the
    parts that are in ``model/`` themselves."""
    loaded = staged(model, *arguments)
    recommender, batch, rows = loaded.model, next(iter(loaded.data.train)), next(iter(loaded.data.test))[0]
    for training, call in ((True, recommender.calculate_loss), (False, recommender.full_sort_predict)):
        recommender.train(training)
        with Opened(recommender) as opened:
            call(batch if training else rows)
        assert len(opened.directly) <= 5, opened.directly
        assert len(opened.of_models) <= most_of_models, opened.of_models


OFFERED = {
    "ContRec": {
        "HasStages",
        "TrainsOnWindows",
        "RanksInBoundedMemory",
        "AnswersInWords",
        "FoldsUsersIn",
        "FoldsItemsIn",
    },
    "TokenRec": {"HasStages", "TrainsOnWindows", "RanksInBoundedMemory", "FoldsUsersIn", "FoldsItemsIn"},
    "TokenRec-beam": {"HasStages", "TrainsOnWindows", "RanksInBoundedMemory", "GeneratesSemanticIds", "FoldsUsersIn"},
    "TIGER": {"HasStages", "TrainsOnWindows", "RanksInBoundedMemory", "GeneratesSemanticIds"},
    "SASRecAll": {"HasStages", "TrainsOnWindows"},
    "SASRec": set(),
    "Pop": set(),
}


@pytest.mark.parametrize("model, offered", OFFERED.items())
def test_models_offer_what_callers_ask_for(assembled, model, offered):
    recommender = assembled(model).model
    asked = set().union(*OFFERED.values())
    assert {name for name in asked if isinstance(recommender, getattr(interface, name))} == offered
