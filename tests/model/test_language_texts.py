"""Item texts as data bring them: without titles or categories, empty, long, of any script, edited after training."""

import pytest
import torch

from recbole_contrec.backbone import Vocabulary
from recbole_contrec.data.text import filled
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.language import Categories
from tests.helpers.files import write_atomic_files

WORDS = "--vocabulary_size=300"
FOUND = {"title": None, "category": None}


def test_what_a_model_reads_and_says_survives_edited_texts(staged, tiny, workplace):
    from recbole_contrec.quick_start import load_data_and_model, run

    arguments = [
        "--answer_weight=0.1",
        "--instructions=['what comes next']",
        "--text_bonus=0.5",
        "--prompt_text=bag",
        WORDS,
        f"--data_path={tiny}",
        "--epochs=1",
        "--hidden_size=16",
        "--tokenizer_epochs=1",
        "--show_progress=False",
        "--n_layers=1",
    ]
    result = run("ContRec", "tiny", arguments=arguments)
    before = load_data_and_model(result["checkpoint"])
    rows = next(iter(before.data.test))[0]
    scores, said = before.model.full_sort_predict(rows), before.model.answers(rows)
    path = tiny / "tiny" / "tiny.item"
    numbers = before.model.language.categories.number
    first, last = min(numbers, key=numbers.get), max(numbers, key=numbers.get)
    path.write_text(path.read_text().replace(last, "aa" + last[2:]).replace("Title", "Zitle"))  # now the first of all
    after = load_data_and_model(result["checkpoint"])
    torch.testing.assert_close(after.model.full_sort_predict(rows), scores)
    assert after.model.answers(rows) == said
    named = after.model.language.categories.named([first, last])
    assert named.tolist() == [numbers[first], numbers[last]] == [1, len(numbers)]


def test_a_vocabulary_of_another_size_is_explained(run_tiny, tiny):
    from recbole_contrec.quick_start import load_data_and_model

    result = run_tiny("ContRec", "--answer_weight=0.1", "--epochs=1", "--vocabulary_size=1000")
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("kind", "a much longer category"))
    with pytest.raises(UserError, match="if item texts were edited after training, it needs those of then"):
        load_data_and_model(result["checkpoint"])


def test_marks_in_a_text_are_characters(staged, tiny):
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("kind", "kind</s>", 1))
    model = staged("ContRec", "--answer_weight=0.1", "--text_weight=0.5", "--prompt_text=bag", WORDS).model.eval()
    answers, end = model.language.answers, model.language.vocabulary.end
    assert (
        (answers.numbers == end).cumsum(1)[:, -1] == answers.longest - answers.lengths + (answers.lengths > 0)
    ).all()
    assert any("</s>" in text for text in model.language.vocabulary.decode(answers.numbers))


def test_long_texts_are_cut_before_they_are_read_and_say_the_same():
    short = [f"Title {number} of a film" for number in range(5000)]
    vocabulary = Vocabulary.trained(short[:200], 400)
    found = vocabulary.encode(short, 8)
    long = vocabulary.encode([text + " and more" * 20_000 for text in short[::500]], 4)
    assert len(found.numbers) == 5000 and torch.equal(found.numbers[::500, :4], long.numbers)
    assert vocabulary.decode(vocabulary.encode(short, 50).numbers)[::999] == [text.lower() for text in short[::999]]


def without_categories(tiny):
    """The tiny data with titles alone."""
    path = tiny / "tiny" / "tiny.item"
    names, *rows = path.read_text().splitlines()
    assert names.split("\t")[1:] == ["title:token_seq", "genre:token_seq"]
    path.write_text("\n".join(row.rpartition("\t")[0] for row in (names, *rows)) + "\n")


def test_without_categories_titles_are_read_and_said(run_tiny, tiny):
    without_categories(tiny)
    titles = ("--answer_weight=0.1", "--answer_template={title}", "--prompt_text=bag", "--item_template={title}", WORDS)
    assert run_tiny("ContRec", *titles, "--epochs=1", "--text_weight=0.1")["best_epoch"] == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--answer_weight=0.1",), r"template '\{category\}': no text field looks like a category.*such as \{title\}"),
        (("--prompt_text=bag",), r"template '\{title\} \{category\}': no text field.*such as \{title\}"),
        (
            ("--answer_weight=0.1", "--answer_template={title}", "--text_bonus=0.1"),
            "no text field looks like a category",
        ),
        (("--answer_weight=0.1", "--answer_template={title}", "--category_template={genre}"), "no text field 'genre'"),
    ],
)
def test_templates_that_ask_for_what_is_not_there(staged, tiny, arguments, message):
    without_categories(tiny)
    with pytest.raises(UserError, match=message):
        staged("ContRec", *arguments, WORDS)


def test_blanks_are_no_texts(staged, tiny):
    assert filled("{title} ({category})", {"title": [" ", "A", "A"], "genre": ["\t", "", "b "]}, FOUND) == [
        "",
        "A ()",
        "A (b )",
    ]
    path = tiny / "tiny" / "tiny.item"
    names, *rows = path.read_text().splitlines()
    path.write_text("\n".join([names, *(row.split("\t")[0] + "\t  \t " for row in rows)]) + "\n")
    for arguments in (("--prompt_text=words",), ("--answer_weight=0.1",)):
        with pytest.raises(UserError, match="the texts of all items are empty"):
            staged("ContRec", *arguments, WORDS)


def test_many_beginnings_of_texts_are_told(staged, caplog, monkeypatch):
    arguments = ("--answer_weight=0.1", "--text_weight=0.1", "--answer_template={title}", WORDS)
    staged("ContRec", *arguments)
    assert "beginnings" not in caplog.text
    monkeypatch.setattr("recbole_contrec.model.parts.language.MANY_BEGINNINGS", 10)
    staged("ContRec", *arguments)
    assert "the beginnings of all texts are read" in caplog.text


@pytest.mark.parametrize(
    "one, other", [("की", "कि"), ("ที่", "ที"), ("C++", "C#"), ("C", "C++"), ("🎭", "🎬"), ("שָׁלוֹם", "שלום")]
)
def test_categories_of_any_script_are_told_apart(one, other):
    categories = Categories(["", f"{one} x", f"{other} x", one])
    assert len(set(categories.category_of.tolist())) == 4
    assert (
        categories.named([f"I say: {one.upper()} x!", f"({other} x)", f"«{one}»"]).tolist()
        == categories.category_of[1:].tolist()
    )


def test_categories_in_lists_of_any_form_are_one():
    categories = Categories(["", "Sci-Fi|Drama", "sci fi, drama", "SCI-FI / DRAMA"])
    assert categories.category_of.tolist() == [0, 1, 1, 1]


def test_answers_that_name_other_categories_are_told(staged, tiny, caplog):
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("kind", "a very special sort of a kind"))
    staged("ContRec", "--answer_weight=0.1", "--text_bonus=0.1")
    assert "text_bonus" not in caplog.text
    staged("ContRec", "--answer_weight=0.1", "--text_bonus=0.1", "--answer_max_tokens=3")
    assert "of the items the whole answer does not name their category" in caplog.text


def test_empty_texts_are_no_prompt(assembled, tiny):
    (tiny / "tiny" / "tiny.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{item}\t\n" for item in range(60))
    )
    with pytest.raises(UserError, match="prompt_text=words: the texts of all items are empty"):
        assembled("ContRec", "--prompt_text=words", "--item_template={title}")


def test_words_are_asked_of_data_without_texts(assembled, tiny):
    (tiny / "tiny" / "tiny.item").unlink()
    for argument in ("--prompt_text=bag", "--answer_weight=0.1"):
        with pytest.raises(UserError, match="'tiny' has no item texts"):
            assembled("ContRec", argument)


def test_texts_of_any_script_and_length_train(workplace, config_of):
    path = write_atomic_files(workplace / "other", name="odd")
    rows = ["item_id:token\ttitle:token_seq\tgenre:token_seq"]
    rows += [
        f"i{item}\t{text}\t{kind}"
        for item, (text, kind) in enumerate(
            [("x" * 100_000, "a"), ("", ""), ("🎬 film 👩‍👩‍👧", "🎭"), ("שלום עולם", "דרמה")] * 15
        )
    ]
    (path / "odd.item").write_text("\n".join(rows) + "\n")
    from recbole_contrec.quick_start import run

    result = run(
        "ContRec",
        "odd",
        arguments=[
            f"--data_path={workplace / 'other'}",
            "--answer_weight=0.1",
            "--prompt_text=words",
            WORDS,
            "--epochs=1",
            "--hidden_size=16",
            "--n_layers=1",
            "--tokenizer_epochs=1",
            "--show_progress=False",
            "--MAX_ITEM_LIST_LENGTH=10",
            "--answer_template={category}: {title}",
            "--text_weight=0.1",
            "--text_bonus=0.1",
        ],
    )
    assert 0 <= result["test_result"]["ndcg@10"] <= 1
