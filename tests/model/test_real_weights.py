"""Real pretrained weights, where they are at hand: ``RECBOLE_CONTREC_MODELS`` names a folder with folders of models, or
GGUF files, in it."""

import json
import os
from pathlib import Path

import pytest
import torch

from recbole_contrec import run

VARIABLE = "RECBOLE_CONTREC_MODELS"
GIVEN = os.environ.get(VARIABLE)
if not GIVEN:
    pytest.skip(f"{VARIABLE} names no folder of pretrained models", allow_module_level=True)

FOLDERS = sorted(path.parent for path in Path(GIVEN).glob("*/config.json"))
KINDS = {folder: json.loads((folder / "config.json").read_text()).get("architectures") or [""] for folder in FOLDERS}
CAUSAL = [folder for folder in FOLDERS if "ForCausalLM" in KINDS[folder][0]] + sorted(Path(GIVEN).glob("**/*.gguf"))
ENCODERS = [folder for folder in FOLDERS if folder not in CAUSAL and "Conditional" not in KINDS[folder][0]]


def test_there_are_models():
    assert CAUSAL or ENCODERS, f"{VARIABLE}={GIVEN} holds no folders of models"


@pytest.mark.parametrize("model", CAUSAL, ids=lambda path: path.name)
def test_a_language_model_knows_what_comes_next(model):
    from recbole_contrec.backbone import PretrainedDecoder

    decoder = PretrainedDecoder(str(model), lora_rank=0).eval()
    numbers = decoder.vocabulary.encode("The capital of France is", add_special_tokens=False).ids
    right, wrong = (
        decoder.vocabulary.encode(f" {name}", add_special_tokens=False).ids[0] for name in ("Paris", "Oslo")
    )
    with torch.no_grad():
        scores = decoder.word_logits(decoder(decoder.read(torch.tensor(numbers))[None]))[0, -1]
    assert scores[right] > scores[wrong] + 1


@pytest.mark.parametrize("preset", ["ContRec-paper", "DeftRec-paper"])
@pytest.mark.parametrize("model", CAUSAL[:1], ids=lambda path: path.name)
def test_a_preset_is_trained_whole_with_its_words(model, preset, tiny):
    result = run(
        preset,
        "tiny",
        {"epochs": 1, "llm_layers": 2, "lightgcn_epochs": 2, "tokenizer_epochs": 2, "MAX_ITEM_LIST_LENGTH": 5},
        arguments=[f"--data_path={tiny}", f"--llm={model}", "--noise_levels=20", "--sampling_steps=20"],
    )
    assert result["settings"]["condition_on"] == "answer" and "answers" in result["card"]["method"]
    assert f"{Path(model).name}, its first 2 layers, LoRA of rank 16" in result["card"]["method"]
    assert 0 <= result["test_result"]["ndcg@10"] <= 1


@pytest.mark.parametrize("model", ENCODERS, ids=lambda path: path.name)
def test_an_encoder_puts_like_texts_together(model):
    from recbole_contrec.item_vectors.text_encoder import TextEncoder

    film, like, other = TextEncoder(str(model), 32)(["a romantic comedy", "a funny love story", "diesel engine oil"])
    assert film @ like > film @ other
