"""Settings that cannot go together are refused before data are read, and before anything is said of the data."""

import pytest

from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.interface import ChecksSettings

ANSWER = "--condition_on=answer"
VECTORS = "--train_item_vectors=False --item_vectors_init=random"


@pytest.mark.parametrize(
    "model, settings, message",
    [
        ("ContRec", "--n_heads=3", "ContRec: n_heads=3 must divide hidden_size=16"),
        ("ContRec", "--lora_rank=4", "lora_rank: for a pretrained language model only"),
        ("ContRec", VECTORS, "would keep random vectors"),
        ("ContRec", "--train_text_columns=False", "train_text_columns=False keeps the text columns"),
        ("ContRec", "--label_smoothing=0.1 --ranking_negatives=5", "label_smoothing=0.1 spreads over the whole"),
        ("ContRec", "--lazy_adam=True", "set ranking_negatives as well"),
        ("DeftRec", "--lazy_adam=True --ranking_negatives=5 --learner=sgd", "learner to one of adam, adamw, not sgd"),
        (
            "TokenRec",
            "--lazy_adam=True --ranking_negatives=5 --train_item_vectors=False --item_vectors_init=vectors",
            "train_item_vectors=False leaves them",
        ),
        ("ContRec", "--lazy_adam=True --ranking_negatives=5 --shard_backbone=True", "shard_backbone"),
        ("SASRecAll", "--lazy_adam=True", "set ranking_negatives as well"),
        ("ContRec", "--text_bonus=0.1", "text_bonus=0.1 needs answers"),
        ("ContRec", ANSWER, "condition_on=answer needs answers"),
        ("ContRec", "--guidance=2", "guidance=2 needs a head .* set condition_dropout"),
        ("DeftRec", "--prediction=v --noisy_skip=False", "prediction x0 alone, not of v"),
        ("DeftRec", ANSWER, "DeftRec: condition_on=answer needs answers"),
        ("DeftRec", "--objective=regression --negative_noise=independent", "negative_noise at same, not independent"),
        ("TokenRec", "--ranking_weight=0 --pairwise_weight=0", "nothing would be learned"),
        ("TokenRec", "--train_text_columns=False", "train_text_columns=False keeps the text columns"),
        ("TokenRec-beam", "--n_heads=3", "n_heads=3 must divide hidden_size=16"),
        ("TokenRec-beam", VECTORS, "would keep random vectors"),
        ("TIGER", "--backbone=causal --attention_head_size=8", "attention_head_size: for backbone=t5 only"),
        ("TIGER", "--refine_every=2", "refine_every: set self_improve=True as well"),
        ("SIIT", "--refine_groups=3 --refine_candidates=4", "refine_groups=3 must divide refine_candidates=4"),
        ("SIIT", "--epochs=1 --refine_every=3", "epochs=1 end before the first refinement"),
        ("SASRecAll", "--train_item_vectors=False", "would keep random vectors"),
        ("SASRecAll", "--train_text_columns=False", "train_text_columns=False keeps the text columns"),
    ],
)
def test_a_run_asks_before_data_are_read(run_tiny, workplace, monkeypatch, model, settings, message):
    monkeypatch.setattr("recbole_contrec.quick_start.load_data", lambda config: pytest.fail("loaded"))
    before = set(workplace.rglob("*"))
    with pytest.raises(UserError, match=message):
        run_tiny(model, *settings.split())
    assert set(workplace.rglob("*")) == before


@pytest.mark.parametrize("model", ["ContRec", "DeftRec", "TokenRec", "TokenRec-beam", "TIGER", "SIIT", "SASRecAll"])
def test_what_a_run_is_asked_the_model_asks_as_well(config_of, model):
    """Who builds a model without a run is told the same."""
    config = config_of(model)
    assert isinstance(config.model_class, ChecksSettings)
    config.model_class.check_settings(config)  # nothing is wrong

    def refuse(config):
        raise ValueError("asked")

    class Asked(config.model_class):
        check_settings = staticmethod(refuse)

    with pytest.raises(ValueError, match="asked"):
        Asked(config, load_data(config).train_dataset)


@pytest.mark.parametrize("setting", ["--topk=[10,100]", "--epochs=1"])
def test_coarse_times_are_told_of_once_nothing_is_wrong(config_of, tiny, caplog, setting):
    path = tiny / "tiny" / "tiny.inter"
    head, *rows = path.read_text().splitlines()
    rows = [row.rpartition("\t") for row in rows]
    path.write_text("\n".join([head, *(f"{rest}\t{1_700_000_000 + int(time)}" for rest, _, time in rows)]) + "\n")
    config = config_of("ContRec", setting)
    if "topk" not in setting:
        assert "in single precision" in load_data(config).dataset.notes[-1]
        assert "in single precision" in caplog.text
        return
    with pytest.raises(UserError, match="asks for more items than the catalogue"):
        load_data(config)
    assert "in single precision" not in caplog.text
