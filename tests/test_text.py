"""Item texts: which columns are title and category, and files as people write them."""

import pytest

from recbole_contrec.data.text import filled, part_field, read_item_texts
from recbole_contrec.errors import UserError


def test_quotation_marks_are_characters_and_a_pair_around_a_field_is_none(config_of, tiny):
    texts = read(config_of, tiny, 'i1\t"Weird" Al\tkind\ni2\t"Two ""quoted"" words"\tkind\ni3\tend of "it\tkind\ni4\t"begin\tkind\n')
    assert texts["title"][1:] == ['"Weird" Al', 'Two "quoted" words', 'end of "it', '"begin']


def test_separators_behind_every_row_shift_nothing(config_of, tiny):
    texts = read(config_of, tiny, "".join(f"i{item}\tfilm {item}\tkind\t\n" for item in range(1, 5)))
    assert texts["title"][1:] == ["film 1", "film 2", "film 3", "film 4"] and set(texts["class"][1:]) == {"kind"}


@pytest.mark.parametrize("content, message", [
    (b"i1\tfilm\tkind\ni2\tfilm\twith\tmore\n", "tiny.item cannot be read: .*line 3"),
    (b"i1\tfilm\tkind\n" * 30000 + b"i2\tf\xe9lm\tkind\n", "tiny.item is not written in utf-8: .*--encoding=latin-1")])
def test_files_that_cannot_be_read_are_said_in_a_line(config_of, tiny, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(config_of, tiny, content)
    assert len(str(caught.value).splitlines()) == 1
    assert read(config_of, tiny, content, "--text_fields=[]") == {}


def read(config_of, tiny, rows, *arguments):
    """Texts of the items i1 to i4 from a file with these rows."""
    path = tiny / "tiny" / "tiny.item"
    path.write_bytes(b"item_id:token\ttitle:token_seq\tclass:token_seq\n" + (rows if isinstance(rows, bytes) else rows.encode()))
    return read_item_texts(config_of("ContRec", *arguments), ["[PAD]", "i1", "i2", "i3", "i4"])


@pytest.mark.parametrize("names, title, category", [
    (["brand_name", "movie_title", "brand", "categories"], "movie_title", "categories"),
    (["username", "full_title"], "full_title", None), (["movieTitle", "subclass", "mainGenre"], "movieTitle", "mainGenre"),
    (["username", "subclass"], "username", "subclass")])
def test_fields_are_found_by_words_of_their_names_the_likeliest_first(names, title, category):
    texts = dict.fromkeys(names, ["", "a"])
    assert part_field("title", texts, None) == title
    if category:
        assert part_field("category", texts, None) == category


def test_a_named_field_counts_more_than_one_called_like_the_part():
    texts = {"title": ["", "A"], "name": ["", "B"]}
    assert filled("{title}", texts, {"title": "name", "category": None}) == ["", "B"]
    with pytest.raises(UserError, match="title_field=nmae: no such text field.*did you mean name"):
        filled("{title}", texts, {"title": "nmae", "category": None})
