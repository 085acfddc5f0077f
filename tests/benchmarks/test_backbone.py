"""Language models of real size on random weights: both ways to train the same targets, and the inference beside
them."""

import json

import pytest

from benchmarks import backbone
from tests.helpers.files import STORIES


@pytest.fixture
def small(monkeypatch):
    """A size that takes no time."""
    monkeypatch.setitem(
        backbone.SIZES,
        "llama-10m",
        dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1),
    )


@pytest.mark.parametrize("tokenizer", [None, STORIES])
def test_a_random_model_is_read_like_a_downloaded_one(small, tmp_path, tokenizer):
    from recbole_contrec.backbone import PretrainedDecoder

    backbone.write_random_model("llama-10m", tokenizer, tmp_path)
    decoder = PretrainedDecoder(str(tmp_path), lora_rank=2)
    assert decoder.hidden_size == 16 and decoder.n_words == (257 if tokenizer is None else 512)
    text = decoder.vocabulary.encode("Toy Story", add_special_tokens=False).ids
    assert decoder.vocabulary.decode(text).strip() == "Toy Story"


@pytest.mark.parametrize("size", ["llama-10m", "compact"])
def test_windows_and_prefixes_are_measured_on_the_same_model(small, tiny, tmp_path, capsys, size):
    arguments = [
        f"--size={size}",
        "--dataset=tiny",
        f"--data_path={tiny}",
        "--batches=2",
        "--rows=4",
        "--users=8",
        "--one_by_one=1",
        f"--output={tmp_path / 'out'}",
        "--vector_size=16",
        "--token_size=16",
        "--tokenizer_epochs=1",
        "--MAX_ITEM_LIST_LENGTH=10",
        "--use_gpu=False",
        "--train_batch_size=40",
    ]
    assert backbone.main(arguments) == 0
    path = tmp_path / "out" / "tiny-backbone" / f"{size}.json"
    record, shown = json.loads(path.read_text()), capsys.readouterr().out
    windows, prefixes = record["windows"], record["prefixes"]
    assert prefixes["targets"] == 8 and windows["targets"] > 40 and 0 <= windows["padding"] < 0.1 + 0.05
    assert record["times_faster"] == pytest.approx(windows["targets_a_second"] / prefixes["targets_a_second"])
    assert record["inference"]["times_faster"] > 1 and 0 < record["share_of_matrix_rate"] < 1
    assert record["trained"] < record["parameters"] and "times the targets" in shown
    assert record["inference"]["ranking_users_a_second"] > record["inference"]["ours_users_a_second"]
    assert record["settings"]["train_batch_size"] == "40" and "llm" not in record["settings"]
    assert str(tmp_path) not in path.read_text()


def test_a_pretrained_model_by_its_folder_and_training_alone(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(STORIES.parent)
    arguments = [
        f"--llm={STORIES.name}",
        "--name=stories-2",
        "--llm_layers=2",
        "--lora_rank=2",
        "--only_training",
        "--dataset=tiny",
        f"--data_path={tiny}",
        "--batches=1",
        f"--output={tmp_path}",
        "--vector_size=16",
        "--token_size=16",
        "--tokenizer_epochs=1",
        "--MAX_ITEM_LIST_LENGTH=10",
        "--use_gpu=False",
    ]
    assert backbone.main(arguments) == 0
    path = tmp_path / "tiny-backbone" / "stories-2.json"
    record = json.loads(path.read_text())
    assert record["size"] == STORIES.name and record["settings"]["llm_layers"] == "2"
    assert record["windows"]["targets_a_second"] > 0 and "prefixes" not in record and "inference" not in record
    assert str(STORIES.parent) not in path.read_text() and "times the targets" not in capsys.readouterr().out


def test_a_wrong_setting_is_an_error_in_a_line(small, tiny, tmp_path, capsys):
    assert (
        backbone.main(
            ["--size=llama-10m", "--dataset=tiny", f"--data_path={tiny}", f"--output={tmp_path}", "--lora_ranc=3"]
        )
        == 2
    )
    assert "did you mean lora_rank" in capsys.readouterr().err
