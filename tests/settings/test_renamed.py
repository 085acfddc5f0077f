"""An old name of a setting is answered with the new one, whichever way it comes, and is no setting itself."""

from pathlib import Path

import pytest

from recbole_contrec import run
from recbole_contrec.catalogue.places import package_properties
from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.groups import list_groups
from recbole_contrec.settings.registry import find_model
from recbole_contrec.settings.renamed import RENAMED, new_name, unknown_setting
from recbole_contrec.settings.schema import read_yaml

MODELS = ("ContRec", "DeftRec", "TokenRec", "TokenRec-beam", "TIGER", "SIIT")


@pytest.fixture
def settings_of():
    return {model: find_model(model, [package_properties()]).settings for model in MODELS}


def error_of(model, **given):
    with pytest.raises(UserError) as caught:
        Config(model, "ml-100k", **given)
    return str(caught.value)


def test_every_new_name_is_a_setting_and_no_old_one_is(settings_of):
    for old, new in RENAMED.items():
        assert all(any(name in settings for settings in settings_of.values()) for name in new), old
        still = {model for model, settings in settings_of.items() if old in settings}
        assert still == ({"ContRec", "DeftRec"} if old in ("item_tokens", "user_tokens") else set()), old


@pytest.mark.parametrize(
    "model, old, new",
    [
        ("TIGER", "codes", "codebook_size"),
        ("SIIT", "item_tokens", "num_codebooks"),
        ("TokenRec", "user_tokens", "num_user_codebooks"),
        ("ContRec", "head_width", "denoiser_width"),
        ("TIGER", "head_width", "attention_head_size"),
        ("DeftRec", "answer_length", "answer_max_tokens"),
        ("TokenRec", "answer_length", "decoder_query_tokens"),
        ("SASRecAll", "average_decay", "ema_decay"),
    ],
)
def test_the_error_names_the_new_name(tmp_path, monkeypatch, model, old, new):
    monkeypatch.chdir(tmp_path)
    told = f"{old} is now called {new}"
    assert error_of(model, arguments=[f"--{old}=3"]) == f"command line: {told}"
    assert error_of(model, config_dict={old: 3}) == f"config_dict: {told}"
    assert error_of(model, settings={old: 3}) == f"settings: {told}"
    mine = Path("mine.yaml")
    mine.write_text(f"{old}: 3\n", encoding="utf-8")
    assert error_of(model, config_file_list=[mine]) == f"mine.yaml: {told}"
    own = Path("properties/model/Mine.yaml")
    own.parent.mkdir(parents=True)
    own.write_text(f"extends: {model}\n{old}: 3\n", encoding="utf-8")
    assert error_of("Mine").endswith(f"Mine.yaml: {told}")


def test_other_models_know_neither_name(settings_of):
    assert (
        new_name("code_restart", settings_of["ContRec"]) is None and new_name("epochs", settings_of["ContRec"]) is None
    )
    assert error_of("SASRec", arguments=["--codes=3"]).startswith("command line: unknown setting codes")


def test_a_model_without_a_language_model_says_so(settings_of):
    for key in read_yaml(list_groups([package_properties()])["llm"]):
        assert error_of("SASRec", arguments=[f"--{key}=1"]) == (
            f"command line: unknown setting {key}: this model has no language model"
        )
    assert "did you mean llm" in unknown_setting("lllm", settings_of["ContRec"])
    assert "no language model" not in unknown_setting("llm_layres", settings_of["ContRec"])


def test_before_a_data_set_is_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="codes is now called codebook_size"):
        run("TIGER", "ml-1m", arguments=["--codes=8"])
