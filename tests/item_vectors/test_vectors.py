"""Vectors of users and items from texts, alone and beside collaborative ones."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_contrec import write_item_vectors
from recbole_contrec.cli import main
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.sources import text_vectors, user_and_item_vectors, vector_stages
from recbole_contrec.tokenizer import load_vectors, save_vectors
from tests.helpers.files import STORIES

TEXTS = [
    "",
    "red nail polish",
    "blue nail polish",
    "shampoo for dry hair",
    "shampoo for oily hair",
    "",
    "red nail polish",
]


def test_texts_that_share_words_have_near_vectors():
    vectors = text_vectors(TEXTS, 4, seed=0)
    assert vectors.shape == (7, 4) and not vectors[[0, 5]].any()
    torch.testing.assert_close(vectors[[1, 2, 3, 4]].norm(dim=1), torch.ones(4))
    torch.testing.assert_close(vectors[1], vectors[6])
    similar = vectors @ vectors.T
    assert similar[1, 2] > 0.3 > similar[1, 3] and similar[3, 4] > 0.3
    assert torch.equal(vectors, text_vectors(TEXTS, 4, seed=0))


def test_columns_beyond_the_rank_are_zero():
    vectors = text_vectors(TEXTS, 12, seed=0)
    assert vectors.shape == (7, 12) and not vectors[:, 6:].any()


@pytest.fixture
def vectors_of(config_of):
    def build(source):
        config = config_of("ContRec", f"--item_vectors={source}")
        return user_and_item_vectors(config, load_data(config).train.dataset, lambda *_: None)

    return build


def test_two_sources_share_the_width(vectors_of, config_of):
    both, svd, text = (vectors_of(source) for source in ("svd+text", "svd", "text"))
    half = user_and_item_vectors(
        config_of("ContRec", "--vector_size=8"), load_data(config_of()).train.dataset, lambda *_: None
    )
    assert both.items.shape == svd.items.shape == text.items.shape
    for ours, theirs in zip(both, half):
        torch.testing.assert_close(ours[:, :8], theirs)
    assert (both.items[1:, 8:] != 0).any(1).all()  # every item has a text
    users = both.users[1:, 8:]
    assert (users != 0).any(1).all() and users.std() == pytest.approx(1, abs=0.1)


def test_other_texts_are_another_stage(run_tiny, tiny):
    first = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")
    again = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")
    assert all(stage["found_on_disk"] for stage in again["stages"].values())
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("odd kind", "strange kind"))
    other = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")
    assert not any(stage["found_on_disk"] for stage in (*first["stages"].values(), *other["stages"].values()))


def test_data_without_texts_say_so(config_of, tiny, run_tiny):
    (tiny / "tiny" / "tiny.item").unlink()
    with pytest.raises(UserError, match="has no item texts"):
        run_tiny("ContRec", "--item_vectors=text")


@pytest.mark.parametrize("texts", [["", "", ""], ["", "a b", "c"]])
def test_texts_without_words_are_refused(texts):
    with pytest.raises(UserError, match="hold no words"):
        text_vectors(texts, 4, seed=0)


def test_one_word_alone_tells_nothing_apart():
    assert not text_vectors(["", "soap", "soap"], 4, seed=0).any()


# vectors as files


@pytest.mark.parametrize(
    "settings",
    [
        ("--item_vectors=svd",),
        ("--item_vectors=text",),
        ("--item_vectors=svd+text",),
        ("--item_vectors=lightgcn", "--lightgcn_epochs=1"),
        (f"--text_encoder={STORIES}",),
        ("--item_vectors=svd+text", f"--text_encoder={STORIES}"),
    ],
)
def test_what_the_command_writes_is_read_as_the_same_vectors(tiny, workplace, vectors_of, config_of, capsys, settings):
    output = workplace / "new" / "my.vectors.npy"
    code = main(
        [
            "vectors",
            "--dataset=tiny",
            f"--data_path={tiny}",
            f"--output={output}",
            "--vector_size=16",
            "--show_progress=False",
            *settings,
        ]
    )
    printed = capsys.readouterr()
    assert code == 0 and printed.err.count("error") == 0 and f"written: {output}, 60 items of width 16" in printed.out
    assert [file.name for file in sorted(output.parent.iterdir())] == ["my.vectors.npy", "my.vectors.tokens.txt"]
    assert np.load(output).shape == (60, 16) and np.load(output).dtype == np.float32
    read = vectors_of(output)
    implied = ["--item_vectors=text"] if "--item_vectors" not in settings[0] else []
    config = config_of("ContRec", "--vector_size=16", *settings, *implied)
    dataset, whole = load_data(config).train.dataset, {}
    for stage in vector_stages(config, dataset, whole):
        stage.accept(stage.build(lambda *_: None).tensors)
    torch.testing.assert_close(read.items, whole["items"], atol=1e-4, rtol=0)
    if settings[0] in (
        "--item_vectors=text",
        f"--text_encoder={STORIES}",
    ):  # where users are means of their items anyway
        torch.testing.assert_close(read.users, whole["users"], atol=1e-4, rtol=0)


def test_held_out_items_have_no_say(tiny, workplace):
    """Other validation and test items, the same file."""

    def written(name):
        write_item_vectors(f"{name}.npy", "ContRec", "tiny", arguments=[f"--data_path={tiny}", "--show_progress=False"])
        return load_vectors(f"{name}.npy", ["", *(f"i{item}" for item in range(60))]).vectors

    before = written("before")
    path = tiny / "tiny" / "tiny.inter"
    header, *lines = path.read_text().splitlines()
    last = {line.split("\t")[0]: number for number, line in enumerate(lines)}
    for number in last.values():
        user, item, rest = lines[number].split("\t", 2)
        lines[number] = f"{user}\ti{(int(item[1:]) + 30) % 60}\t{rest}"
    path.write_text("\n".join([header, *lines]) + "\n")
    torch.testing.assert_close(written("after"), before)


def test_a_text_encoder_alone_means_texts(tiny, workplace):
    (workplace / "given.yaml").write_text(f"text_encoder: {STORIES}\n")
    (workplace / "svd.yaml").write_text("item_vectors: svd\n")
    arguments = [f"--data_path={tiny}", "--vector_size=80", "--show_progress=False"]
    assert write_item_vectors("v.npy", "ContRec", "tiny", config_file_list=["given.yaml"], arguments=arguments) == (
        60,
        80,
    )
    assert not np.load("v.npy")[:, 64:].any()  # the model's width
    with pytest.raises(UserError, match="item_vectors=svd asks for none"):
        write_item_vectors("w.npy", "ContRec", "tiny", config_file_list=["given.yaml", "svd.yaml"], arguments=arguments)
    with pytest.raises(UserError, match="SASRec has no item_vectors"):
        write_item_vectors("w.npy", "SASRec", "tiny", arguments=[f"--data_path={tiny}"])
    assert not Path("w.npy").exists()


def test_files_appear_when_both_are_complete(tmp_path):
    vectors = torch.randn(2, 3)
    save_vectors(tmp_path / "v.npy", ["a", "b\x85c"], vectors)
    torch.testing.assert_close(load_vectors(tmp_path / "v.npy", ["", "b\x85c", "a"]).vectors[1:], vectors.flip(0))
    with pytest.raises(ValueError, match="ends in .npy"):
        save_vectors(tmp_path / "v.txt", ["a", "b"], vectors)
    with pytest.raises(UnicodeEncodeError):
        save_vectors(tmp_path / "w.npy", ["a", "\ud83d"], vectors)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v.npy", "v.tokens.txt"]


DAMAGED_ARRAYS = {
    "objects": lambda whole: _saved(np.array([[None] * 3] * 4, dtype=object)),
    "texts": lambda whole: _saved(np.array([["a"] * 3] * 4)),
    "NaN": lambda whole: _saved(np.full((4, 3), np.nan)),
    "one row": lambda whole: _saved(np.ones(12)),
    "dates": lambda whole: _saved(np.zeros((4, 3), "M8[s]")),
    "cut": lambda whole: whole[:-5],
    "no array": lambda whole: b"x" * 500,
    "empty": lambda whole: b"",
    "header": lambda whole: whole.replace(b"(4, 3)", b"(4,,3)"),
    "absurd": lambda whole: whole.replace(b"(4, 3)", b"(99999999999, 3)"),
    "code": lambda whole: whole.replace(b"'<f8'", b"print"),
}


def _saved(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("damage", DAMAGED_ARRAYS)
def test_damaged_arrays_are_refused_in_a_short_line(tmp_path, damage):
    (tmp_path / "v.npy").write_bytes(DAMAGED_ARRAYS[damage](_saved(np.random.default_rng(0).random((4, 3)))))
    (tmp_path / "v.tokens.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(ValueError) as caught:
        load_vectors(tmp_path / "v.npy", ["[PAD]", "a", "b", "c", "d"])
    assert (
        str(tmp_path / "v.npy") in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    )
