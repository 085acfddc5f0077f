"""
recbole_contrec.data.text
#########################
The texts of the items (titles, categories), read beside RecBole. RecBole's own loading of ``.item`` would
enlarge the catalogue by items that nobody touched, so that models with and without texts would
not rank the same items; and it would join the text columns into every batch.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer

from recbole_contrec.data.atomic_header import is_there, read_header
from recbole_contrec.data.recbole_files import Files
from recbole_contrec.errors import UserError, did_you_mean, shown

# By these beginnings of words the fields of title and category are found, the likeliest first.
PARTS = {"title": ("title", "name"), "category": ("categor", "genre", "class", "brand", "artist")}


def read_item_texts(
    config: Mapping[str, Any], item_ids: Iterable[str], files: Files | None = None
) -> dict[str, list[str]]:
    """Texts of every item, aligned to the internal item numbers.

    Args:
        config: reads ``data_path``, ``dataset``, ``ITEM_ID_FIELD`` and ``text_fields`` (names, or ``~``
            for every ``token_seq`` and ``token`` column of the ``.item`` file; an empty list for none).
        item_ids: original item ids by internal number; entry 0 is the padding.
        files: those of the run, where RecBole has read some.

    Returns:
        dict: field name -> one text an item, empty where the data has none. Empty dict without a ``.item`` file.

    Raises:
        UserError: a named field is not a column of the file, or the file cannot be read as it is meant.
    """
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    wanted = config["text_fields"]
    if not is_there(path):
        if wanted:
            raise UserError(f"text_fields={wanted} needs {path}, which does not exist")
        return {}
    if wanted == []:
        return {}
    columns = read_header(path, config["field_separator"], config["encoding"])
    item_field = config["ITEM_ID_FIELD"]
    for name in wanted or ():
        if name not in columns:
            raise UserError(
                f"text_fields: {path.name} has no column {name!r}{did_you_mean(name, columns)}; "
                f"it has {', '.join(columns)}"
            )
    fields = text_columns(columns, item_field, wanted)
    if item_field not in columns:
        raise UserError(f"{path.name} has no column {item_field!r}; it has {', '.join(columns)}")
    files = files or Files(config)
    table = files.item_texts(path, [item_field, *fields]).set_index(item_field)
    if not table.index.isin(item_ids).any():
        what = (
            f"{path.name}: none of its items occurs in an interaction, so no item has a text; its first is "
            f"{shown(table.index[0])}"
        )
        if wanted:
            raise UserError(what)
        files.tell([what])
    table = table.reindex(item_ids).fillna("")
    separator = config["seq_separator"]
    return {
        name: [" ".join(filter(None, text.split(separator))) for text in table[name]]
        if columns[name].endswith("seq") and separator != " "
        else table[name].tolist()
        for name in fields
    }


def text_columns(columns: Mapping[str, str], item_field: str, wanted: list[str] | None) -> list[str]:
    """Columns of an ``.item`` file that hold texts.

    Args:
        columns: name -> type, as its header has them.
        item_field: the column of the item ids.
        wanted: ``text_fields``.
    """
    if wanted is not None:
        return [name for name in wanted if name in columns]
    return [name for name, kind in columns.items() if kind in ("token_seq", "token") and name != item_field]


def check_words(config: Mapping[str, Any], path: Path) -> None:
    """Ask the header of an ``.item`` file whether the items have titles and categories.

    Args:
        config: reads the settings of :func:`read_item_texts`, and ``title_field`` and ``category_field``.
        path: the file.

    Raises:
        UserError: says what is missing.
    """
    if not is_there(path):
        raise UserError(f"there is no {path.name}")
    header = read_header(path, config["field_separator"], config.get("encoding"))
    fields = text_columns(header, config["ITEM_ID_FIELD"], config.get("text_fields"))
    for part in PARTS:
        part_field(part, fields, config.get(f"{part}_field"))


def joined(texts: dict[str, list[str]]) -> list[str]:
    """All fields of :func:`read_item_texts` as one text an item."""
    return [" ".join(filter(None, fields)) for fields in zip(*texts.values())]


# Scripts without blanks between words, of which every sign counts as a word: Thai and Lao, Burmese, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED += "\uff66-\uff9d\U00020000-\U0003ffff"
# Vowel signs and the like, from Hebrew to Indic scripts: to Python they are no letters, and would cut words in two.
_SIGNS = "".join(
    chr(number)
    for first, last in ((0x590, 0x1AFF), (0xA800, 0xABFF))
    for number in range(first, last + 1)
    if unicodedata.category(chr(number)) in ("Mn", "Mc")
)
# Two letters or digits at least, as scikit-learn has it, or one sign of a script without blanks.
WORD = rf"(?=[{_UNSPACED}])\w[{_SIGNS}]*|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{_SIGNS}])+"


def tfidf() -> TfidfVectorizer:
    """Words and pairs of words of item texts, weighted; not fitted yet."""
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=WORD)


def unspaced(texts: Iterable[str]) -> bool:
    """Whether any text has signs that scikit-learn's own pattern of a word does not know what to do with."""
    signs = re.compile(f"[{_UNSPACED}{_SIGNS}]")
    return any(signs.search(text) for text in texts)


def has_words(texts: Sequence[str]) -> bool:
    """Whether any text holds a word as :func:`tfidf` takes them: two letters or digits at least."""
    words = tfidf().build_analyzer()
    return any(words(text) for text in texts)


def part_field(part: str, texts: Collection[str], named: str | None) -> str:
    """The text field that holds the ``title`` or the ``category`` of the items.

    Args:
        named: by the user (setting ``title_field`` or ``category_field``), None to find it by its name.

    Raises:
        UserError: no such field, or none that looks like it.
    """
    if named is not None:
        if named not in texts:
            raise UserError(
                f"{part}_field={named}: no such text field{did_you_mean(named, texts)}; "
                f"there are {', '.join(texts) or 'none'}"
            )
        return named
    words = {name: re.sub("([a-z])([A-Z])", r"\1_\2", name).lower() for name in texts}
    for where in (r"(?<![a-z]){}", "{}"):  # at the beginning of a word, else anywhere
        for hint in PARTS[part]:
            for name in texts:
                if re.search(where.format(hint), words[name]):
                    return name
    raise UserError(
        f"no text field looks like a {part}: name one with --{part}_field=NAME; there are {', '.join(texts) or 'none'}"
    )


def filled(template: str, texts: dict[str, list[str]], named: dict[str, str | None]) -> list[str]:
    """A text for every item.

    Args:
        template: with ``{title}``, ``{category}`` or the name of any text field in braces.
        named: the fields of ``title`` and ``category``, as in :func:`part_field`.

    Raises:
        UserError: a part of the template that the texts do not have.
    """
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise UserError(f"{template!r} is no template: {error}") from error
    parts = [name for _, name, _, _ in fields]
    if any(form or conversion for _, _, form, conversion in fields):
        raise UserError(f"{template!r} is no template: write {{title}} without : and ! in the braces")
    if not parts:
        raise UserError(f"the template {template!r} names no part of an item: write for instance {{title}}")
    columns, known = {}, list(dict.fromkeys([*PARTS, *texts]))
    for part in parts:
        if part not in known:
            raise UserError(
                f"the template {template!r}: no text field {part!r}{did_you_mean(str(part), known)}; "
                f"there are {', '.join(known)}"
            )
        literal = part in texts and named.get(part) is None
        try:
            columns[part] = texts[part if literal else part_field(part, texts, named[part])]
        except UserError as error:
            instead = f"; or write a template of these, such as {{{next(iter(texts))}}}" if texts else ""
            raise UserError(f"the template {template!r}: {error}{instead}") from error
    # blanks alone are no text
    return [
        template.format(**dict(zip(columns, row))).strip() if any(map(str.strip, row)) else ""
        for row in zip(*columns.values())
    ]
