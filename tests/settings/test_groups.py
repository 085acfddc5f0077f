"""Groups of settings that models share: where they are found, what counts over what, and mistakes in their use."""

from collections import Counter
from pathlib import Path

import pytest

from recbole_contrec.catalogue.places import package_properties, properties_folders
from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.groups import included, list_groups
from recbole_contrec.settings.registry import SPECIAL_KEYS, find_model, is_overlay
from recbole_contrec.settings.schema import read_settings

OWN = package_properties()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def model(text, name="Mine"):
    write(f"properties/model/{name}.yaml", text)
    return find_model(name, properties_folders())


def error_of(text):
    with pytest.raises(UserError) as caught:
        model(text)
    return str(caught.value)


# the package's own files


def own_files():
    return [path for path in sorted(OWN.glob("model/*.yaml")) if not is_overlay(path)]


def test_a_setting_is_declared_in_one_file():
    files = [*own_files(), *OWN.glob("groups/*.yaml")]
    declared = Counter(key for path in files for key, line in read_settings(path).items() if line.declared)
    # TokenRec lets transformers choose the attention of a T5, TokenRec-beam leaves semantic ids to its tokenizer, and
    # Pop narrows two settings of all models.
    assert {key for key, count in declared.items() if count > 1} == {
        "llm_attention",
        "semantic_ids",
        "train_neg_sample_args",
        "epochs",
    }


def test_groups_hold_checked_settings_only():
    for name, path in list_groups([OWN]).items():
        lines = read_settings(path)
        assert lines and all(line.declared and line.meaning for line in lines.values()), name
        assert not set(lines) & set(SPECIAL_KEYS)


def test_every_group_is_included_and_none_overlap():
    used = set()
    for path in own_files():
        groups = included(path, [OWN])
        keys = [key for group in groups for key in read_settings(group)]
        assert len(keys) == len(set(keys)), path
        used.update(groups)
    assert used == set(list_groups([OWN]).values())


def test_a_model_states_only_values_that_differ():
    for path in own_files():
        known = {key: line for group in included(path, [OWN]) for key, line in read_settings(group).items()}
        for key, line in read_settings(path).items():
            if key in known and not line.meaning:
                assert line.default != known[key].default, (path.name, key)


# what counts


def test_own_lines_count_over_groups_and_keep_their_checks(here):
    entry = model(
        "model_class: recbole_contrec.model.pop:Pop\ninclude: [compact]\nn_layers: 3\ndropout: 0.1  # Everywhere.\n"
    )
    assert entry.values == {"hidden_size": 64, "n_layers": 3, "n_heads": 2, "inner_size": 256, "dropout": 0.1}
    assert entry.settings["dropout"].meaning == "Everywhere."
    assert entry.settings["n_layers"].meaning == "Layers."
    with pytest.raises(UserError, match=r"n_layers=0: must be a whole number from 1 to 1000 \(Mine.yaml\)"):
        entry.settings["n_layers"].check(0)
    with pytest.raises(UserError, match=r"n_heads=0: .* \(groups/compact.yaml\)"):
        entry.settings["n_heads"].check(0)


def test_groups_count_over_the_model_that_is_extended(here):
    entry = model("extends: TIGER\ninclude: [compact, histories]\nn_heads: 4\n")
    assert [entry.values[key] for key in ("n_layers", "n_heads", "MAX_ITEM_LIST_LENGTH")] == [2, 4, 200]


def test_a_group_counts_over_what_the_base_has_for_a_data_set(here):
    model("extends: ContRec\ninclude: [compact]\n")
    write("properties/model/ContRec_on_ml-100k.yaml", "n_layers: 5\nepochs: 3\n")
    config = Config("Mine", "ml-100k", config_dict={"data_path": "dataset"})
    assert config["n_layers"] == 2 and config["epochs"] == 3


def test_groups_of_the_user_come_first_and_may_be_new(here):
    write("properties/groups/compact.yaml", "hidden_size: 8  # (int; 4..16) Narrow.\n")
    write("properties/groups/depth.yaml", "blocks: 2  # (int; >= 1) Blocks.\n")
    entry = model("model_class: recbole_contrec.model.pop:Pop\ninclude: [compact, depth]\n")
    assert entry.values == {"hidden_size": 8, "blocks": 2}


# mistakes


@pytest.mark.parametrize(
    "line, expected",
    [
        (
            "include: [histoires]",
            "line 2: include: there is no group 'histoires' (did you mean histories?); there are ",
        ),
        ("include: histories", "line 2: include: must be a list of groups, such as [histories, vectors]"),
        ("include: []", "must be a list of groups"),
        ("include: [1]", "must be a list of groups"),
        ("include: [../model/ContRec]", "there is no group"),
        ("include: [llm, llm]", "names llm twice"),
    ],
)
def test_a_wrong_group(here, line, expected):
    error = error_of(f"extends: ContRec\n{line}\n")
    assert "Mine.yaml, line 2" in error and expected in error


def test_only_a_file_that_names_a_class_adds_settings(here):
    error = error_of("extends: SASRec\ninclude: [compact]\n")
    assert "compact.yaml: unknown setting dropout" in error
    with pytest.raises(UserError, match="retrieval.yaml: unknown setting similarity"):
        model("extends: TIGER\ninclude: [retrieval]\n")


def test_only_the_file_of_a_model_includes(here):
    write("properties/groups/odd.yaml", "include: [llm]\n")
    assert "odd.yaml: include is for the file of a model" in error_of("extends: ContRec\ninclude: [odd]\n")
    write("properties/groups/odd.yaml", "extends: TIGER\n")
    assert "odd.yaml: extends is for the file of a model" in error_of("extends: ContRec\ninclude: [odd]\n")
    write("properties/overall.yaml", "include: [training]\n")
    with pytest.raises(UserError, match="overall.yaml: include is for the file of a model"):
        Config("ContRec", "ml-100k")
