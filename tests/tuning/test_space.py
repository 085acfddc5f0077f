"""Spaces of a search: what files say, and what is refused."""

import math

import pytest
from optuna.trial import FixedTrial

from recbole_contrec.catalogue.places import package_properties, properties_folders
from recbole_contrec.errors import UserError
from recbole_contrec.settings.registry import find_model, general_settings
from recbole_contrec.tuning.space import Choice, Range, find_space, read_space

SHIPPED = sorted((package_properties() / "space").glob("*.yaml"))


def written(tmp_path, text, name="space.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_lists_and_ranges(tmp_path):
    text = "sizes: [[64, 32], ~, adam]\nlayers: {low: 1, high: 6, step: 2}\nrate: {low: 1e-4, high: 1e-2, log: True}\n"
    space = read_space(written(tmp_path, text))
    assert space == {
        "sizes": Choice(([64, 32], None, "adam")),
        "layers": Range(1, 5, 2),
        "rate": Range(1e-4, 1e-2, None, True),
    }
    assert space["sizes"].suggest(FixedTrial({"sizes": "[64, 32]"}), "sizes") == [64, 32]
    assert isinstance(space["layers"].suggest(FixedTrial({"layers": 3}), "layers"), int)


def test_the_files_of_run_hyper(tmp_path):
    text = (
        "learning_rate loguniform -8,0\nhidden_size choice [64, 128]\nn_layers quniform 0.5,3,1\ndropout uniform 0,1\n"
    )
    space = read_space(written(tmp_path, text, "hyper.test"))
    assert space["learning_rate"] == Range(math.exp(-8), 1.0, None, True)
    assert space["hidden_size"] == Choice((64, 128))
    assert space["n_layers"] == Range(1, 3, 1) and space["dropout"] == Range(0.0, 1.0)


@pytest.mark.parametrize(
    "text, name, message",
    [
        ("", "a.yaml", "names no setting"),
        ("rate: 3", "a.yaml", "neither a list"),
        ("rate: []", "a.yaml", "neither a list"),
        ("rate: {low: 1, hihg: 2}", "a.yaml", "neither a list"),
        ("rate: [1, 1]", "a.yaml", "twice"),
        ("rate: {low: 2, high: 1}", "a.yaml", "smaller than high"),
        ("rate: {low: 0, high: .inf}", "a.yaml", "smaller than high"),
        ("rate: {low: 0, high: 1, log: True}", "a.yaml", "greater than 0 and there is no step"),
        ("rate: {low: True, high: 2}", "a.yaml", "are numbers"),
        ("rate choice 1,2)", "a.test", "cannot read"),
        ("rate choice (1)", "a.test", "cannot read"),
        ("rate normal 0,1", "a.test", "cannot read"),
        ("rate", "a.test", "cannot read"),
        ("rate loguniform 0,1000", "a.test", "cannot read"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, text, name, message):
    with pytest.raises(UserError, match=message):
        read_space(written(tmp_path, text, name))


def test_a_missing_file_is_one_line(tmp_path):
    for name in ("none.yaml", "none.test"):
        with pytest.raises(UserError, match="none"):
            read_space(tmp_path / name)


def test_which_values_a_space_holds():
    range_of_steps = Range(0.1, 0.6, 0.1)
    assert range_of_steps.name_of(0.3) == 0.3 and range_of_steps.name_of(0.25) is None
    assert Range(1, 5).name_of(2.5) is None and Range(1.0, 5.0).name_of(2.5) == 2.5
    assert Range(1, 5).name_of(True) is None and Range(1, 5).name_of(None) is None
    assert Choice((1, None)).name_of(None) == "~" and Choice((1, 2)).name_of(3) is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_hold_settings_of_their_model_and_its_defaults(path):
    known = {**general_settings(properties_folders())[0], **find_model(path.stem, properties_folders()).settings}
    for key, values in read_space(path).items():
        assert all(known[key].accepts(value) for value in values.ends()), key
        if key != "train_batch_size" and known[key].default is not None:  # RecBole's is larger than ours
            assert values.name_of(known[key].default) is not None, key


def test_every_shipped_model_that_trains_has_a_space():
    for model in ("ContRec", "DeftRec", "TokenRec", "TIGER", "SIIT", "SASRecAll", "SASRec", "BERT4Rec", "GRU4Rec"):
        assert find_space(model, properties_folders())
    assert find_space("NoModel", properties_folders()) is None
