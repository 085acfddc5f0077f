"""Texts as a language model reads them: a trained model, other kinds of models, and folders that hold none."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors import text_encoder
from recbole_contrec.item_vectors.text_encoder import TextEncoder
from tests.helpers.encoders import TEXTS
from tests.helpers.files import STORIES

EMPTY = [1, 6]


def one_by_one(encoder, texts):
    """The mean of the last hidden states of each text, computed alone and without any padding."""
    rows = []
    for text in texts:
        tokens = encoder.tokenizer(text.strip(), truncation=True, max_length=encoder.max_tokens)["input_ids"]
        states = encoder.model(torch.tensor([tokens])).last_hidden_state[0]  # [S, D]
        rows.append(sum(states) / len(states))
    return torch.nn.functional.normalize(torch.stack(rows).detach(), dim=1)


# from texts to vectors


@pytest.mark.parametrize("tokens_a_batch", [1, 100, 8192])
def test_vectors_are_means_over_the_tokens_of_a_text_alone(encoder, monkeypatch, tokens_a_batch):
    monkeypatch.setattr(text_encoder, "TOKENS_A_BATCH", tokens_a_batch)
    vectors = encoder(TEXTS)
    assert vectors.shape == (11, 64) and vectors.dtype == torch.float32 and not vectors.requires_grad
    assert [row for row in range(11) if not vectors[row].any()] == EMPTY
    read = [row for row in range(11) if row not in EMPTY and "\ud83d" not in TEXTS[row]]
    torch.testing.assert_close(vectors[read], one_by_one(encoder, [TEXTS[row] for row in read]), atol=1e-5, rtol=0)


def test_order_and_company_change_nothing(encoder):
    vectors, order = encoder(TEXTS), torch.randperm(11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder([TEXTS[row] for row in order]), vectors[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(TEXTS[:3]), vectors[:3], atol=1e-5, rtol=0)
    assert torch.equal(encoder(TEXTS), vectors)
    assert not encoder([""] * 3).numel() and not encoder([]).numel()


def test_the_model_is_a_trained_one(encoder):
    """Sentences that say nearly the same are nearer than those that do not, once what all share is taken away."""
    vectors = encoder(
        ["Lily had a red ball.", "Lily had a big red ball.", "It was raining all day.", "It rained all day."]
    )
    around = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    similar = around @ around.T
    assert similar[0, 1] > 0.5 > similar[0, 2] and similar[2, 3] > 0.5


def test_texts_are_cut_by_tokens(encoder):
    long = ("Once upon a time there was a dog. " * 3000)[:100_000]
    assert len(long) == 100_000
    short = TextEncoder(str(STORIES), 10)
    whole = encoder.tokenizer(long[:1000])["input_ids"]
    for reads, count in ((encoder, 64), (short, 10)):
        tokenised = reads.tokenise([long, "a dog"])
        assert tokenised.tokens[:count].tolist() == whole[:count] and tokenised.lengths.tolist()[0] == count
    assert encoder(["x" * 100_000, "🐶" * 100_000]).norm(dim=1).tolist() == pytest.approx([1, 1])
    same_beginning = long[:300] + "but the rest is another"
    torch.testing.assert_close(encoder([same_beginning]), encoder([long]))
    assert not torch.allclose(short([long]), encoder([long]), atol=1e-3)


def test_every_kind_of_text_counts(encoder):
    lengths = encoder.tokenise([*TEXTS, None]).lengths
    assert [row for row, length in enumerate(lengths) if not length] == [*EMPTY, 11]
    foreign = ["🐶", "🎈", "שלום", "مرحبا"]
    read = encoder.tokenise(foreign)
    assert len({tuple(read.tokens[read.offsets[row] : read.offsets[row + 1]]) for row in range(4)}) == 4  # as bytes
    assert encoder(foreign).norm(dim=1).tolist() == pytest.approx([1] * 4)


def test_a_tokenizer_without_padding(encoder, copy):
    folder = copy()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    without = TextEncoder(str(folder), 64)
    assert without.tokenizer.pad_token is None
    torch.testing.assert_close(without(TEXTS), encoder(TEXTS))


def tiny_model(kind):
    import transformers

    torch.manual_seed(0)
    shape = {"vocab_size": 512, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "T5":
        return transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=512, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
            )
        )
    if kind == "GPT2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=512, n_embd=16, n_layer=2, n_head=2))
    config = getattr(transformers, f"{kind}Config")(**shape, intermediate_size=32, pad_token_id=0)
    return getattr(transformers, f"{kind}ForMaskedLM")(config)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "T5", "GPT2"])
def test_other_kinds_of_models(copy, kind):
    """Both directions, positions that count from the padding, an encoder with a decoder beside it, a causal model."""
    folder = copy("model", "*.safetensors", "config.json")
    tiny_model(kind).save_pretrained(folder)
    encoder = TextEncoder(str(folder), 64)
    read = [text for row, text in enumerate(TEXTS) if row not in EMPTY and "\ud83d" not in text]
    torch.testing.assert_close(encoder(read), one_by_one(encoder, read), atol=1e-5, rtol=0)


def test_work_is_reported_and_bounded(encoder, monkeypatch):
    monkeypatch.setattr(text_encoder, "TOKENS_A_BATCH", 128)
    monkeypatch.setattr(text_encoder, "CHARACTERS_A_CHUNK", 300)
    sizes, seen = [], []
    monkeypatch.setattr(
        encoder.model,
        "forward",
        lambda forward=encoder.model.forward, **batch: (sizes.append(batch["input_ids"].numel()), forward(**batch))[1],
    )
    texts = ["Once upon a time " * (number % 30) for number in range(200)]
    tokenised = encoder.tokenise(texts, lambda done, total, text: seen.append((done, total, text)))
    vectors = encoder.encode(tokenised, lambda done, total, text: seen.append((done, total, text)))
    assert max(sizes) <= 128 and sum(sizes) < 1.1 * tokenised.lengths.sum()  # sorted by length, so hardly any padding
    assert (vectors != 0).any(1).sum() == sum(map(bool, texts))
    for phase, total in (("cut into tokens", 200), ("longest first", 193)):
        steps = [step for step in seen if step[2] == phase]
        assert steps[-1][:2] == (total, total) and len(steps) > 3 and sorted(steps) == steps


# what makes an encoder another one


def test_the_identity_is_that_of_the_files(encoder, copy):
    moved, changed = copy("moved"), copy("changed")
    assert TextEncoder(str(moved), 10).identity == encoder.identity
    weights = load_file(changed / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**weights, name: weights[name] * 1.01}, changed / "model.safetensors", {"format": "pt"})
    assert TextEncoder(str(changed), 64).identity != encoder.identity
    renamed = copy("renamed")
    (renamed / "generation_config.json").rename(renamed / "other.json")
    assert TextEncoder(str(renamed), 64).identity != encoder.identity


def test_random_weights_are_another_encoder_and_come_back_from_their_seed(encoder):
    first, again, other = (TextEncoder(encoder.name, 64, random_seed=seed) for seed in (1, 1, 2))
    assert first.identity == again.identity
    assert len({encoder.identity, first.identity, other.identity}) == 3
    texts = ["a blue cup", "a red cap"]
    assert torch.equal(first(texts), again(texts))
    for one, another in ((encoder, first), (first, other)):
        assert one(texts).shape == another(texts).shape and not torch.allclose(one(texts), another(texts), atol=1e-2)


# mistakes


def without_tokenizer(kind):
    def build(copy):
        folder = copy("model", "*.json", "*.safetensors")
        tiny_model(kind).save_pretrained(folder)
        return folder

    return build


def with_a_file(name, text, *left_out):
    def build(copy):
        folder = copy("model", *left_out)
        (folder / name).write_text(text)
        return folder

    return build


def without_a_tensor(copy):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "layers.3" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def with_nan(copy):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] * np.nan},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def with_more_words(copy):
    folder = copy()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {
            "id": 512,
            "content": "dog",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": False,
        }
    )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda copy: copy("model", "config.json"), "holds no transformers model"),
        (lambda copy: copy("model", "*.safetensors"), "holds no transformers model"),
        (lambda copy: copy("model", "*"), "holds no transformers model"),
        (lambda copy: copy("model", "tokenizer*"), "its tokenizer cannot be loaded"),
        (without_tokenizer("Bert"), "its tokenizer cannot be loaded: its files .* are missing"),
        (without_tokenizer("GPT2"), "its tokenizer cannot be loaded: its files .* are missing"),
        (without_tokenizer("T5"), "its tokenizer cannot be loaded: its files .* are missing"),
        (with_a_file("config.json", "{}"), "its configuration cannot be loaded"),
        (with_a_file("config.json", "{"), "its configuration cannot be loaded"),
        (with_a_file("model.safetensors", "cut off"), "its model cannot be loaded"),
        (without_a_tensor, "its model cannot be loaded: its files lack 9 of its tensors, such as layers.3"),
        (with_nan, "its states are not finite"),
        (with_more_words, "its tokenizer gives number 512, and the model knows 512 tokens"),
    ],
)
def test_folders_that_are_no_encoder(copy, build, message):
    folder = build(copy)
    with pytest.raises(UserError, match=message) as caught:
        TextEncoder(str(folder), 16)(["a dog"])
    assert str(caught.value).startswith(f"text_encoder={folder}: ") and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("tokens, message", [(1, "reads at least 2, 1 of which are marks"), (513, "reads at most 512")])
def test_numbers_of_tokens_that_cannot_be(tokens, message):
    with pytest.raises(UserError, match=f"text_encoder_max_tokens={tokens}: .*{message}"):
        TextEncoder(str(STORIES), tokens)
