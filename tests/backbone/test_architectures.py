"""Language models of other architectures, and folders and settings that cannot be."""

import sys

import pytest
import torch

from recbole_contrec.backbone import PretrainedDecoder
from recbole_contrec.backbone.probe import reads_branches
from recbole_contrec.errors import UserError
from tests.helpers.files import STORIES
from tests.helpers.stories import STORY, close, folder_of, random_model, renumber, tree

# other models


def test_rows_without_a_word_are_never_predicted(tmp_path, stories):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(STORIES)
    model.resize_token_embeddings(640, mean_resizing=False)
    model.save_pretrained(folder_of(tmp_path / "more rows", without=["model.safetensors"]))
    more, states = PretrainedDecoder(str(tmp_path / "more rows"), lora_rank=0), torch.randn(2, 64)
    close(more.word_logits(states), stories.word_logits(states))  # [2, 512]
    renumber(tmp_path / "more rows", **{"▁they": 515})
    scores = PretrainedDecoder(str(tmp_path / "more rows"), lora_rank=0).word_logits(states)
    assert scores.shape == (2, 516) and scores.isfinite().sum(1).tolist() == [512, 512]
    assert scores[:, [366, 512, 513, 514]].eq(-torch.inf).all()


@pytest.mark.parametrize("kind, settings", [("gemma2", {"attention": "eager"}), ("cohere", {}), ("granite", {})])
def test_scores_are_scaled_as_the_architecture_does(tmp_path, kind, settings):
    own = {"granite": {"logits_scaling": 8.0}, "cohere": {"logit_scale": 0.1}}.get(
        kind, {"final_logit_softcapping": 2.0}
    )
    decoder = PretrainedDecoder(str(random_model(tmp_path / kind, kind, **own)), lora_rank=0, **settings).eval()
    numbers = torch.randint(3, 512, (2, 6))
    with torch.no_grad():
        expected = decoder.model(numbers).logits
        plain = decoder.model.get_output_embeddings()(decoder(decoder.read(numbers)))
        close(decoder.word_logits(decoder(decoder.read(numbers))), expected)
        assert (plain - expected).norm() > 0.1 * expected.norm()


def test_layers_with_a_window(tmp_path):
    """Branches within it are read, longer prompts as the model itself reads them, and longer branches not at all."""
    path = random_model(tmp_path / "window", "mistral", sliding_window=6)
    decoder = PretrainedDecoder(str(path), lora_rank=0).eval()
    inputs, zeros = torch.randn(1, 9, 16), torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        close(decoder(inputs), decoder.model.model(inputs_embeds=inputs).last_hidden_state)
        order = tree([4], [2, 2])
        close(decoder(inputs[:, :8], *order)[0, 6:], decoder(inputs[:, [0, 1, 2, 3, 6, 7]])[0, 4:])
        rows = torch.cat([inputs, inputs])
        close(
            decoder.states_at(rows, torch.tensor([[8], [7]]), shared=6),
            decoder.states_at(rows, torch.tensor([[8], [7]])),
        )
        _, memory = decoder.start(inputs[:, :5], torch.tensor([[4]]), room=2)
        stepped, memory = decoder.step(memory, inputs[:, 5:6], zeros)
        close(stepped, decoder(inputs[:, :6])[:, 5:])
        for attempt in (
            lambda: decoder(inputs[:, :8], *tree([4], [4])),
            lambda: decoder.start(inputs, zeros, 1),
            lambda: decoder.step(memory, inputs[:, 6:7], zeros),
        ):
            with pytest.raises(ValueError, match="some layers see 6 positions only"):
                attempt()


def test_a_model_without_position_numbers_reads_plain_prompts(tmp_path):
    path = random_model(tmp_path / "bloom", "bloom", n_head=2, n_layer=2)
    decoder = PretrainedDecoder(str(path), attention="eager").eval()
    assert decoder(torch.randn(2, 5, 16)).shape == (2, 5, 16)
    inputs, at = torch.randn(1, 5, 16).expand(2, -1, -1), torch.tensor([[4], [4]])
    close(decoder.states_at(inputs, at, shared=3), decoder.states_at(inputs, at))
    for attempt in (
        lambda: decoder(torch.randn(2, 5, 16), torch.arange(5).expand(2, -1)),
        lambda: decoder.start(torch.randn(1, 5, 16), torch.tensor([[4]]), 1),
    ):
        with pytest.raises(ValueError, match="a bloom model .* cannot read branches"):
            attempt()


def test_an_architecture_that_ignores_masks_or_has_no_cache_is_noticed(stories, monkeypatch):
    words, forward = torch.tensor([265, 300, 400]), stories.forward
    nothing, refused = (lambda *_: None), (lambda *_: {}["layers"])
    assert reads_branches(stories, words)
    for method, instead in (
        ("forward", lambda inputs, positions=None, visible=None: forward(inputs)),
        ("forward", lambda inputs, positions=None, visible=None: forward(inputs, positions)),
        ("start", refused),
        ("step", refused),
        ("step", nothing),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(stories, method, instead)
            assert not reads_branches(stories, words)


# what cannot be


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dtype": "int8"}, "dtype='int8': choose one of auto, float32"),
        ({"attention": "fast"}, "attention='fast': choose one of sdpa, eager"),
        ({"attention": "flash_attention_2"}, "needs a dtype of bfloat16 or float16"),
        ({"quantisation": "2bit"}, "quantisation='2bit': choose one of None, 4bit, 8bit"),
        ({"quantisation": "4bit", "lora_rank": 0}, "cannot be trained, set lora_rank"),
        ({"quantisation": "4bit", "random_seed": 1}, "random weights are not quantised"),
        ({"lora_rank": -1}, "lora_rank=-1"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"lora_targets": ["q_proj", "v_prj"]}, "no layer 'v_prj'.*did you mean v_proj"),
        ({"layers": 6}, "llm_layers=6: the model has 5 layers"),
        ({"layers": 3, "lora_layers": 4}, "lora_layers=4: of the model 3 layers are used"),
        ({"lora_layers": 2, "lora_rank": 0}, "lora_layers=2: with lora_rank=0 all layers are trained"),
        ({"lora_targets": []}, "name at least one layer"),
        ({"lora_targets": "act_fn"}, "'act_fn'. cannot be adapted"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        PretrainedDecoder(str(STORIES), **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"attention": "flash_attention_2", "dtype": "bfloat16"}, "pip install flash-attn"),
        ({"quantisation": "4bit"}, r"pip install 'recbole_contrec\[quantised\]'"),
        ({"lora_rank": 1}, r"pip install 'recbole_contrec\[llm\]'"),
    ],
)
def test_packages_that_are_missing(settings, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for package in ("flash_attn", "bitsandbytes"):
        if package in sys.modules:
            pytest.skip(f"{package} is here")
    with pytest.raises(UserError, match=message):
        PretrainedDecoder(str(STORIES), **settings)


BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"without": ["config.json"]}, "holds no transformers model"),
        ({"without": ["model.safetensors"]}, "holds no transformers model"),
        ({"without": ["tokenizer.json"]}, r"its tokenizer cannot be loaded: its files \(tokenizer.json\) are missing"),
        ({"without": ["tokenizer.json", "tokenizer_config.json"]}, r"its files \(tokenizer.json\) are missing"),
        ({"tokenizer": {"eos_token": None}}, "no end of text: its tokenizer_config.json needs an eos_token"),
        ({"tokenizer": {"eos_token": None}, **BERT}, "is a bert model, not a causal language model"),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "is a t5 model, not a causal language model"),
        ({"model_type": "something-new"}, "does not know models of its kind: pip install -U transformers"),
        ({"model_type": "something-new", "auto_map": {"AutoConfig": "x.Y"}}, "code of its own, which is not executed"),
        ({"num_hidden_layers": 6}, "its files lack 9 of its tensors, such as model.layers.5"),
        ({"hidden_size": 128}, "cannot be loaded"),
    ],
)
def test_folders_that_hold_no_such_model(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        PretrainedDecoder(str(folder_of(tmp_path / "x", **changes)))
    assert str(tmp_path) in str(error.value) and str(error.value).count("\n") < 2


def test_a_model_that_reads_both_ways_is_refused(tmp_path):
    path = random_model(tmp_path / "bert", "bert", is_decoder=False)
    with pytest.raises(UserError, match="is a bert model, not a causal language model"):
        PretrainedDecoder(str(path))


def test_damaged_files(tmp_path):
    path = folder_of(tmp_path / "x")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be loaded"):
        PretrainedDecoder(str(path))
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not a valid JSON file"):
        PretrainedDecoder(str(path))


def test_a_tokenizer_with_more_words_than_the_model(tmp_path):
    path = folder_of(tmp_path / "x")
    renumber(path, **{"▁they": 512})
    with pytest.raises(UserError, match="its tokenizer has 513 words, its model 512"):
        PretrainedDecoder(str(path))


def test_the_length_of_somebody_elses_texts_is_forgotten(tmp_path):
    from tokenizers import Tokenizer

    path = folder_of(tmp_path / "x")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(path / "tokenizer.json"))
    decoder = PretrainedDecoder(str(path))
    assert decoder.vocabulary.decode(decoder.vocabulary.encode(STORY).ids) == STORY
    assert len(decoder.vocabulary.encode("a").ids) == 2
