"""New items folded in by their texts as a language model reads them."""

import pytest
import torch

from recbole_contrec import fold_in_texts, load_data_and_model, recommend
from recbole_contrec.errors import UserError
from tests.helpers.encoders import WITH_ENCODER


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
