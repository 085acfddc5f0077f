"""New items folded in by their texts as a language model reads them."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from recbole_contrec import fold_in_texts, load_data_and_model, recommend
from recbole_contrec.errors import UserError
from tests.helpers.encoders import WITH_ENCODER
from tests.helpers.files import STORIES


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


@pytest.mark.parametrize(
    "model, arguments",
    [
        ("ContRec", ()),
        ("ContRec", ("--user_tokens=0",)),
        ("ContRec", ("--fold_in=False", "--tokenizer=none", "--user_tokens=1", "--item_tokens=1", "--token_size=16")),
        ("DeftRec", ("--user_tokens=0",)),
        ("TokenRec", ("--num_user_codebooks=0",)),
        ("TokenRec", ("--num_user_codebooks=0", "--distinct_codes=False")),
    ],
)
def test_another_encoder_than_that_of_training_is_noticed(run_tiny, copy, model, arguments):
    folder = copy("encoder")
    run = run_tiny(model, "--item_vectors=text", f"--text_encoder={folder}", "--epochs=1", *arguments)
    assert fold_in_texts(load_data_and_model(run["checkpoint"]), {"new": "Title of a new one"}) == ["new"]
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    for tensor in weights.values():
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for _ in range(2):  # nothing is kept of the first attempt
        with pytest.raises(UserError, match=f"other vectors than item_vectors=text.*weights of text_encoder={folder}"):
            fold_in_texts(load_data_and_model(run["checkpoint"]), {"new": "Title of a new one"})


def test_another_encoder_than_that_of_training_does_no_harm_where_it_makes_no_tokens(run_tiny, copy):
    """Where its texts are compared alone, the new ones are read as it reads those of training."""
    arguments = ("--item_vectors=svd", "--text_similarity=0.1", "--user_tokens=0", "--epochs=1")
    run = run_tiny("ContRec", *arguments, f"--text_encoder={STORIES}")
    loaded = load_data_and_model(run["checkpoint"], {"text_encoder": str(copy("elsewhere"))})
    assert fold_in_texts(loaded, {"new": "Title of a new one"}) == ["new"]


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
