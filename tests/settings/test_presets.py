"""Presets of RecBole's own models: what they change, and that they train as their models do."""

import pytest

from recbole_contrec.quick_start import settings_of
from recbole_contrec.settings.config import Config

LONG = ("SASRec", "BERT4Rec", "GRU4Rec")


@pytest.mark.parametrize("model", LONG)
@pytest.mark.parametrize("dataset", ["ml-100k", "tiny"])
def test_long_histories_change_the_length_alone(model, dataset, tiny):
    """On a data set that the model has a file for, too: heirs of a model want what it wants."""
    plain, long = (
        Config(name, dataset, arguments=[f"--data_path={tiny}"] if dataset == "tiny" else [])
        for name in (model, f"{model}-200")
    )
    before, now = settings_of(plain), settings_of(long)
    changed = {key: now[key] for key in now if now[key] != before[key]}
    assert changed == {"MAX_ITEM_LIST_LENGTH": 200} and before.keys() == now.keys()
    assert long.entry.is_recbole and long.entry.recbole_name == model
    assert (f"{model}_on_ml-100k.yaml" in long.describe()) == (dataset == "ml-100k")


@pytest.mark.parametrize("model", LONG)
def test_long_histories_are_read(model, run_tiny):
    result = run_tiny(f"{model}-200", "--MAX_ITEM_LIST_LENGTH=200", "--epochs=1")
    assert result["card"]["model"] == f"{model}-200" and result["card"]["max_history"] == 200
    assert result["test_result"]["ndcg@10"] > 0
