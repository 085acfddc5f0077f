"""Item texts: which columns are title and category, and files as people write them."""

import pytest

from recbole_contrec.data.text import filled, part_field, read_item_texts, tfidf
from recbole_contrec.errors import UserError


def test_quotation_marks_are_characters_and_a_pair_around_a_field_is_none(config_of, tiny):
    texts = read(
        config_of,
        tiny,
        'i1\t"Weird" sings "Eat It"\tkind\ni2\t"Two ""quoted"" words"\tkind\ni3\tend of "it\tkind\ni4\t"begin\tkind\n',
    )
    assert texts["title"][1:] == ['"Weird" sings "Eat It"', 'Two "quoted" words', 'end of "it', '"begin']


def test_commas_are_held_together_by_quotation_marks(config_of, tiny):
    (tiny / "tiny" / "tiny.item").write_text(
        'item_id:token,title:token_seq\ni1,"Matrix, The"\ni2,"Two ""quoted"" words"\ni3,plain\n'
    )
    (tiny / "tiny" / "tiny.inter").write_text((tiny / "tiny" / "tiny.inter").read_text().replace("\t", ","))
    config = config_of("ContRec", "--field_separator=,")
    assert read_item_texts(config, ["[PAD]", "i1", "i2", "i3"]) == {
        "title": ["", "Matrix, The", 'Two "quoted" words', "plain"]
    }


@pytest.mark.parametrize(
    "content, message",
    [
        (b"i1\tfilm\tkind\ni2\tfilm\twith\tmore\n", "tiny.item, line 3 has 4 fields, the header has 3"),
        (b"i1\tfilm\twith\tmore\ni2\tfilm\tkind\n", "tiny.item, line 2 has 4 fields, the header has 3"),
        (
            b"i1\tfilm\tkind\t\ni2\tfilm\tkind\t\n",
            "tiny.item, line 2 has 4 fields, .*lines 2 and 3.*at the end of the row",
        ),
        (b"i1\tfilm\tkind\ni2\tfilm\n", "tiny.item, line 3 has 2 fields, the header has 3"),
        (
            b"i1\tfilm\tkind\n" * 30000 + b"i2\tf\xe9lm\tkind\n",
            "tiny.item is not written in utf-8 .line 30002, .*--encoding=latin-1",
        ),
    ],
)
def test_files_that_cannot_be_read_are_said_in_a_line(config_of, tiny, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(config_of, tiny, content)
    assert len(str(caught.value).splitlines()) == 1
    assert read(config_of, tiny, content, "--text_fields=[]") == {}


def read(config_of, tiny, rows, *arguments):
    """Texts of the items i1 to i4 from a file with these rows."""
    path = tiny / "tiny" / "tiny.item"
    path.write_bytes(
        b"item_id:token\ttitle:token_seq\tclass:token_seq\n" + (rows if isinstance(rows, bytes) else rows.encode())
    )
    return read_item_texts(config_of("ContRec", *arguments), ["[PAD]", "i1", "i2", "i3", "i4"])


@pytest.mark.parametrize(
    "names, title, category",
    [
        (["brand_name", "movie_title", "brand", "categories"], "movie_title", "categories"),
        (["username", "full_title"], "full_title", None),
        (["movieTitle", "subclass", "mainGenre"], "movieTitle", "mainGenre"),
        (["username", "subclass"], "username", "subclass"),
    ],
)
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
    with pytest.raises(UserError, match=r"\(did you mean title\?\); there are title, category, name$"):
        filled("{titel}", texts, {"title": None, "category": None})  # a field of this name is not named twice


@pytest.mark.parametrize(
    "text, words",
    [
        ("The x1_2 a café's", ["the", "x1_2", "café"]),
        ("红色连衣裙 iPhone手机", ["红", "色", "连", "衣", "裙", "iphone", "手", "机"]),
        ("タワー・日", ["タ", "ワ", "ー", "日"]),
        ("สนุก", ["ส", "นุ", "ก"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),
        ("한국 영화", ["한국", "영화"]),
    ],
)
def test_words_are_found_in_every_script(text, words):
    assert [word for word in tfidf().build_analyzer()(text) if " " not in word] == words
