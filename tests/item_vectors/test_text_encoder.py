"""Texts as a language model reads them: a trained model, its own tokenizer, and what becomes of the item vectors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_contrec import fold_in_texts, load_data_and_model, recommend
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors import text_encoder
from recbole_contrec.item_vectors.sources import (
    check_source,
    principal_components,
    user_and_item_vectors,
    vector_stages,
)
from recbole_contrec.item_vectors.text_encoder import TextEncoder
from recbole_contrec.storage import checkpoint
from tests.helpers.files import STORIES

TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    "",
    "Tom and his dog play in the park",
    "🐶🎈 a red balloon",
    "שלום עולם",
    "مرحبا بالعالم",
    "   \t\n",
    "The cat sat on the big mat and saw it. " * 3,
    "a",
    "\ud83d half a character",
    "Lily and Tom",
]
EMPTY = [1, 6]
WITH_ENCODER = ("--item_vectors=text", f"--text_encoder={STORIES}", "--epochs=1")


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(str(STORIES), 64)


@pytest.fixture
def copy(tmp_path):
    """A function (name, *left out) -> a copy of the model's folder."""

    def build(name="copy", *left_out):
        shutil.copytree(STORIES, tmp_path / name, ignore=shutil.ignore_patterns(*left_out))
        return tmp_path / name

    return build


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


def test_another_encoder_is_another_stage(run_tiny, copy):
    def found(*arguments):
        stages = run_tiny("ContRec", *WITH_ENCODER, *arguments)["stages"]
        return {name: stage["found_on_disk"] for name, stage in stages.items()}

    assert set(found()) == {"item texts", "item vectors", "item tokenizer", "user tokenizer", "text similarity"}
    assert all(found().values()) and all(found(f"--text_encoder={copy()}").values())
    other_seed = found("--seed=7")  # and the texts are not read again
    assert other_seed.pop("item texts") and not any(other_seed.values())
    assert not any(found("--text_encoder_max_tokens=12").values())
    assert not any(found("--random_weights=text_encoder").values())
    changed = copy("changed")
    with (changed / "tokenizer_config.json").open("a") as file:
        file.write(" ")
    assert not any(found(f"--text_encoder={changed}").values())
    plain = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")["stages"]
    assert "item texts" not in plain and not plain["item vectors"]["found_on_disk"]


def test_the_stage_says_how_much_was_read(run_tiny):
    report = run_tiny("ContRec", *WITH_ENCODER, "--text_encoder_max_tokens=12")["stages"]["item texts"]["report"]
    assert report["texts"] == 60 and report["width"] == 64
    assert 8 < report["tokens"] <= 12 and 0 < report["share_at_the_cut"] <= 1


# item vectors


def test_principal_components_are_an_exact_svd_around_the_mean():
    torch.manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(30, 6) + 3, dim=1)
    texts[[0, 5]] = 0
    known = texts.any(1)
    vectors = principal_components(texts, 4)
    assert not vectors[~known].any() and torch.equal(vectors, principal_components(texts, 4))
    centred = (texts[known] - texts[known].mean(0)).double()
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(vectors[known].abs().double(), (left * values)[:, :4].abs(), atol=1e-5, rtol=0)
    wide = principal_components(texts, 9)
    assert wide.shape == (30, 9) and not wide[:, 6:].any()
    torch.testing.assert_close(wide[known] @ wide[known].T, (centred @ centred.T).float(), atol=1e-5, rtol=0)


def test_principal_components_of_texts_that_are_all_one():
    texts = torch.nn.functional.normalize(torch.ones(9, 6) + 1e-7 * torch.randn(9, 6), dim=1)
    assert not principal_components(texts, 4).any()  # rounding is no difference
    assert not principal_components(torch.zeros(3, 6), 4).any()


def vectors_of(config):
    found, dataset = {}, load_data(config).train.dataset
    for stage in vector_stages(config, dataset, found):
        stage.accept(stage.build(lambda *_: None).tensors)
    return found


def test_encoded_texts_stand_in_for_tfidf(config_of):
    alone = vectors_of(config_of("ContRec", *WITH_ENCODER))
    both = vectors_of(config_of("ContRec", *WITH_ENCODER, "--item_vectors=svd+text", "--vector_size=16"))
    svd = vectors_of(config_of("ContRec", "--vector_size=8"))
    half = vectors_of(config_of("ContRec", *WITH_ENCODER, "--vector_size=8"))
    assert alone["items"].shape == both["items"].shape == (61, 16) and not alone["items"][0].any()
    for side in ("users", "items"):
        torch.testing.assert_close(both[side], torch.cat([svd[side], half[side]], dim=1))
        varies = alone[side][1:].var(0, unbiased=False)
        assert varies[varies > 0].mean() == pytest.approx(1, abs=0.1)
    config = config_of("ContRec", "--item_vectors=text")
    tfidf = user_and_item_vectors(config, load_data(config).train.dataset, lambda *_: None)
    assert not torch.allclose(tfidf.items, alone["items"], atol=0.1)


def test_the_encoder_is_asked_by_what_reads_texts_alone(config_of):
    config = config_of("SIIT-states", *WITH_ENCODER, "--item_vectors=svd", "--item_descriptions=text")
    dataset = load_data(config).train.dataset
    check_source(config, dataset)
    assert [stage.name for stage in vector_stages(config, dataset, {})] == ["item texts", "item vectors"]
    assert [stage.name for stage in vector_stages(config, dataset, {"texts": 0}, "item_descriptions")] == [
        "item descriptions"
    ]
    with pytest.raises(UserError, match="text_encoder=.* reads item texts"):
        check_source(config_of("SIIT-states", *WITH_ENCODER, "--item_vectors=svd"), dataset)


@pytest.mark.parametrize("model", ["SIIT-states", "TokenRec-beam"])
def test_texts_are_read_once_for_all_seeds_and_uses(run_tiny, workplace, model):
    told = [*WITH_ENCODER, "--item_descriptions=text", "--self_improve=True", "--refine_rounds=0", "--epochs=1"]
    for further in ((), ("--seed=7",), ("--item_vectors=svd+text",)):
        run_tiny(model, *told, *further)
    assert len(list((workplace / "saved" / "stages").glob("item-texts-*"))) == 1


def test_a_width_beyond_that_of_the_model_is_filled_with_zeros(config_of):
    items = vectors_of(config_of("ContRec", *WITH_ENCODER, "--vector_size=80"))["items"]
    assert items.shape == (61, 80) and not items[:, 64:].any() and items[1:, :4].any(0).all()


def test_whitening_gives_all_directions_of_the_texts_the_same_size(encoder, config_of):
    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, *7 * [1.0]])
    vectors = torch.nn.functional.normalize(vectors + 3, dim=1)
    vectors[0] = 0
    plain, half, full = (principal_components(vectors, 5, share) for share in (0, 0.5, 1))
    assert torch.equal(plain, principal_components(vectors, 5)) and not full[0].any()
    deviations = plain[1:].std(0, correction=0)
    assert deviations[0] > 2 * deviations[4]
    torch.testing.assert_close(half[1:], plain[1:] / deviations.sqrt())
    torch.testing.assert_close(full[1:].T @ full[1:] / 199, torch.eye(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("with_encoder", [True, False])
def test_the_text_columns_alone_are_whitened(config_of, with_encoder):
    told = ("--item_vectors=svd+text", "--text_whitening=1", *([f"--text_encoder={STORIES}"] if with_encoder else []))
    whitened = vectors_of(config_of("ContRec", *told, "--vector_size=16"))["items"]
    plain = vectors_of(config_of("ContRec", *told, "--vector_size=16", "--text_whitening=0"))["items"]
    assert torch.equal(whitened[:, :8], plain[:, :8])
    covariance = whitened[1:, 8:].T @ whitened[1:, 8:] / 60
    torch.testing.assert_close(covariance, torch.eye(8), atol=1e-3, rtol=0)
    assert not torch.allclose(plain[1:, 8:].T @ plain[1:, 8:] / 60, torch.eye(8), atol=0.1)


def test_nothing_to_whiten_is_refused(config_of):
    dataset = load_data(config_of()).train.dataset
    with pytest.raises(UserError, match="text_whitening=0.5 is of item texts, and item_vectors=svd reads none"):
        check_source(config_of("ContRec", "--text_whitening=0.5"), dataset)
    check_source(config_of("ContRec", "--item_vectors=text", "--text_whitening=0.5"), dataset)


@pytest.mark.parametrize("model", ["DeftRec", "TokenRec"])
def test_other_models_read_them_too(run_tiny, model):
    assert run_tiny(model, *WITH_ENCODER)["stages"]["item texts"]["report"]["texts"] == 60


# items that were not in training


@pytest.mark.parametrize("model", ["ContRec", "TokenRec"])
def test_an_item_is_folded_in_by_its_text(tiny, run_tiny, model):
    rows = ["item_id:token\ttitle:token_seq"] + [
        f"i{item}\t{'A little girl and her dog play' if item % 2 else 'The sun was hot in the sky'} on day {item}"
        for item in range(60)
    ]
    (tiny / "tiny" / "tiny.item").write_text("\n".join(rows) + "\n")
    loaded = load_data_and_model(run_tiny(model, *WITH_ENCODER)["checkpoint"])
    known = loaded.model.n_items
    new = {"girl": "A little girl and her dog play 🐶", "sun": "The sun was hot in the sky, very hot"}
    assert fold_in_texts(loaded, new) == ["girl", "sun"] and loaded.model.n_items == known + 2
    reader = loaded.known.encoder
    assert fold_in_texts(loaded, {"girl again": new["girl"]}) == ["girl again"] and loaded.known.encoder is reader
    vectors = loaded.model.item_vectors.weight.detach()
    torch.testing.assert_close(vectors[known + 2], vectors[known], atol=1e-5, rtol=0)
    assert torch.isfinite(vectors).all() and not torch.allclose(vectors[known], vectors[known + 1], atol=1e-3)
    assert len(recommend(loaded, histories=[["girl", "i8"]], k=3)) == 3
    for text in ("", "  ", None):
        with pytest.raises(UserError, match="the text of 'nothing' is empty"):
            fold_in_texts(loaded, {"nothing": text})


def test_texts_lead_to_the_items_that_say_the_same(tiny, staged):
    rows = ["item_id:token\ttitle:token_seq"] + [
        f"i{item}\t{'A little girl and her dog play' if item % 2 else 'The sun was hot in the sky'} on day {item}"
        for item in range(60)
    ]
    (tiny / "tiny" / "tiny.item").write_text("\n".join(rows) + "\n")
    loaded = staged("ContRec", *WITH_ENCODER, "--item_vectors_init=vectors", "--train_item_vectors=False")
    fold_in_texts(loaded, {"new": "A little girl and her dog play on day 100"})
    vectors = torch.nn.functional.normalize(loaded.model.item_vectors.weight.detach(), dim=1)
    numbers = loaded.data.dataset.field2token_id["item_id"]
    similar = [[float(vectors[numbers[f"i{item}"]] @ vectors[-1]) for item in range(first, 60, 2)] for first in (0, 1)]
    assert min(similar[1]) > 0.3 > max(similar[0])


def test_items_of_the_data_that_nobody_had(tiny, assembled):
    """Without texts given, those are taken that the data set has, and items without one are left as they are."""
    path = tiny / "tiny" / "tiny.inter"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines + ["u0\tlast\t3\t900", "u1\tnameless\t3\t901"]) + "\n")  # test targets
    with (tiny / "tiny" / "tiny.item").open("a") as file:
        file.write("last\tThe last of all\todd kind\n")
    loaded = assembled("ContRec", *WITH_ENCODER)
    loaded.trainer.run_stages(loaded.data.train)
    assert fold_in_texts(loaded) == ["last"]


@pytest.mark.parametrize("text", ["a dog", ""])
def test_items_of_training_that_tell_nothing_apart_are_nothing_to_learn_from(tiny, staged, text):
    path = tiny / "tiny" / "tiny.inter"
    path.write_text(path.read_text() + "u0\tlast\t3\t900\nu1\tother\t3\t901\n")  # test targets
    rows = ["item_id:token\ttitle:token_seq"] + [f"i{item}\t{text}" for item in range(60)]
    (tiny / "tiny" / "tiny.item").write_text("\n".join([*rows, "last\tthe sun", "other\tthe moon"]) + "\n")
    loaded = staged("ContRec", *WITH_ENCODER, "--item_vectors=svd+text")
    with pytest.raises(UserError, match="tell no two items apart"):
        fold_in_texts(loaded, {"new": "a cat"})


def test_texts_that_are_one_up_to_the_cut(run_tiny):
    with pytest.raises(UserError, match="the same words from every item text: raise text_encoder_max_tokens=4"):
        run_tiny("ContRec", *WITH_ENCODER, "--text_encoder_max_tokens=4")


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


def test_a_killed_download_is_finished(encoder, empty_cache, monkeypatch):
    """In the cache is no more than the configuration: what lacks comes by the name, of the same commit."""
    import transformers

    snapshot = empty_cache / "models--owner--model" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(STORIES / "config.json", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    fetched = []

    def fetching(load):
        def from_pretrained(source, revision=None, **options):
            fetched.append((source, revision)) if source == "owner/model" else None
            return load(str(STORIES) if source == "owner/model" else source, **options)

        return from_pretrained

    for loader in (transformers.AutoTokenizer, transformers.AutoModel):
        monkeypatch.setattr(loader, "from_pretrained", fetching(loader.from_pretrained))
    named = TextEncoder("owner/model", 64)
    assert named.identity == "owner/model " + "c" * 40
    torch.testing.assert_close(named(TEXTS), encoder(TEXTS))
    assert fetched == [("owner/model", "c" * 40)] * 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--item_vectors=svd", "--text_similarity=0"),
            f"text_encoder='{STORIES}' reads item texts, and item_vectors=svd asks for none",
        ),
        (("--item_vectors=lightgcn", "--text_similarity=0"), "item_vectors=lightgcn asks for none"),
        (("--text_encoder=nowhere/at/all",), "there is no such folder"),
        (("--text_encoder_max_tokens=1000",), "at most 512"),
        (("--text_fields=[]",), "has no item texts"),
        (("--text_encoder=~", "--random_weights=text_encoder"), "random_weights=text_encoder: name the architecture"),
        (("--random_weights=both",), "random_weights=both: name the architecture by llm"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(run_tiny, workplace, arguments, message):
    before = set(workplace.rglob("*"))
    with pytest.raises(UserError, match=message):
        run_tiny("ContRec", *WITH_ENCODER, *arguments)
    assert set(workplace.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "  "])
def test_texts_that_are_all_empty(tiny, run_tiny, text):
    rows = ["item_id:token\ttitle:token_seq"] + [f"i{item}\t{text}" for item in range(60)]
    (tiny / "tiny" / "tiny.item").write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match="has item texts, but all are empty"):
        run_tiny("ContRec", *WITH_ENCODER)


def test_a_trained_model_needs_no_encoder(run_tiny, copy):
    folder = copy()
    checkpoint = run_tiny("ContRec", *WITH_ENCODER, f"--text_encoder={folder}")["checkpoint"]
    shutil.rmtree(folder)
    assert len(recommend(load_data_and_model(checkpoint), users=["u1"], k=3)) == 3


def test_a_run_goes_on_where_its_encoder_has_moved(run_tiny, copy, workplace, caplog):
    first, arguments = copy(), (*WITH_ENCODER, "--run_name=moved")
    run_tiny("ContRec", *arguments, f"--text_encoder={first}")
    first.rename(workplace / "elsewhere")
    result = run_tiny("ContRec", *arguments, "--text_encoder=elsewhere", "--epochs=2", resume="saved/moved")
    assert result["epochs"] == 2 and result["settings"]["text_encoder"] == str(workplace / "elsewhere")
    (said,) = (record.message for record in caplog.records if "goes on with" in record.message)
    assert "text_encoder" not in said

    other = copy("other")
    (other / "generation_config.json").unlink()  # another encoder, as far as its files tell
    with pytest.raises(UserError, match=r"trained with text_encoder=.*elsewhere, and the files of .*other are others"):
        run_tiny("ContRec", *arguments, f"--text_encoder={other}", "--epochs=3", resume="saved/moved")
    with pytest.raises(UserError, match="trained with random_weights=None"):
        run_tiny("ContRec", *arguments, "--random_weights=text_encoder", "--epochs=3", resume="saved/moved")


def test_a_moved_encoder_of_a_run_that_did_not_note_its_files_is_refused(run_tiny, copy, workplace):
    first, arguments = copy(), (*WITH_ENCODER, "--run_name=moved")
    run_tiny("ContRec", *arguments, f"--text_encoder={first}")
    last = workplace / "saved" / "moved" / "last.safetensors"
    stored = checkpoint.load(last)
    for stage in stored.record["stages"].values():  # as an earlier version has written it
        stage.pop("settings", None)
    kept = {key: value for key, value in stored.record.items() if key not in ("format", "checksum")}
    checkpoint.save(last, stored.tensors, kept)
    with pytest.raises(UserError, match="trained with text_encoder=.*: resume with the same settings"):
        run_tiny("ContRec", *arguments, f"--text_encoder={copy('moved')}", "--epochs=2", resume="saved/moved")


# a process of its own, offline, with a model in Hugging Face's cache


def test_a_name_is_found_in_the_cache(tiny, workplace):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = workplace / "home" / "hub" / "models--owner--stories"
    shutil.copytree(STORIES, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)

    def call(*arguments, **environment):
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "recbole_contrec",
                "vectors",
                "--dataset=tiny",
                "--data_path=data",
                "--output=v.npy",
                "--vector_size=8",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "HF_HOME": str(workplace / "home"), "OMP_NUM_THREADS": "1", **environment},
        )

    done = call("--text_encoder=owner/stories")
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.load("v.npy").shape == (60, 8) and "Retrying" not in done.stderr
    [stage] = Path("saved/stages").glob("item-texts-*")
    done = call("--text_encoder=owner/stories", HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and f"found in {stage}" in done.stdout
    done = call("--text_encoder=owner/other", HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "HF_HUB_OFFLINE is set" in done.stderr and len(done.stderr.splitlines()) == 1
