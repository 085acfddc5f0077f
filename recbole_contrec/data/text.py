"""
recbole_contrec.data.text
#########################
The texts of the items (titles, categories), read beside RecBole. RecBole's own loading of ``.item`` would
enlarge the catalogue by items that nobody touched, so that models with and without texts would
not rank the same items; and it would join the text columns into every batch.
"""

import csv
import re
from pathlib import Path
from string import Formatter

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from recbole_contrec.data.headers import read_header
from recbole_contrec.errors import UserError, did_you_mean

# By these beginnings of words the fields of title and category are found, the likeliest first.
PARTS = {"title": ("title", "name"), "category": ("categor", "genre", "class", "brand", "artist")}


def read_item_texts(config, item_ids) -> dict[str, list[str]]:
    """Texts of every item, aligned to the internal item numbers.

    Args:
        config: reads ``data_path``, ``dataset``, ``ITEM_ID_FIELD`` and ``text_fields`` (names, or ``~``
            for every ``token_seq`` and ``token`` column of the ``.item`` file; an empty list for none).
        item_ids: original item ids by internal number; entry 0 is the padding.

    Returns:
        dict: field name -> one text an item, empty where the data has none. Empty dict without a ``.item`` file.

    Raises:
        UserError: a named field is not a column of the file.
    """
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    wanted = config["text_fields"]
    if not path.is_file():
        if wanted:
            raise UserError(f"text_fields={wanted} needs {path}, which does not exist")
        return {}
    columns = read_header(path, config["field_separator"], config["encoding"])
    if wanted == []:
        return {}
    item_field = config["ITEM_ID_FIELD"]
    texts = [name for name, kind in columns.items() if kind in ("token_seq", "token") and name != item_field]
    for name in wanted or ():
        if name not in columns:
            raise UserError(f"text_fields: {path.name} has no column {name!r}{did_you_mean(name, columns)}; "
                            f"it has {', '.join(columns)}")
    fields = texts if wanted is None else list(wanted)
    if item_field not in columns:
        raise UserError(f"{path.name} has no column {item_field!r}; it has {', '.join(columns)}")
    table = _read_table(path, len(columns), config["field_separator"], config["encoding"] or "utf-8")
    table = table.set_axis(list(columns), axis=1)[[item_field, *fields]].apply(lambda column: column.map(_unquoted))
    table = table.drop_duplicates(item_field).set_index(item_field).reindex(item_ids).fillna("")
    return {name: table[name].tolist() for name in fields}


def _read_table(path: Path, columns: int, separator: str, encoding: str) -> pd.DataFrame:
    """Columns 0 to ``columns`` - 1 as texts. Between tabs a quotation mark is a character like others, for a title may begin with
    one; with other separators a pair of them holds a field together, as CSV files have it.

    Raises:
        UserError: a line with more fields than the header, or bytes of another encoding.
    """
    try:
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding=encoding, header=None, skiprows=1,
                            names=range(columns + 1), index_col=False,
                            quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL)
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not written in {encoding}: name its encoding, for instance --encoding=latin-1"
                        ) from error
    except pd.errors.ParserError as error:
        raise UserError(f"{path.name} cannot be read: {str(error).strip()}") from error
    beyond = table.pop(columns)
    if (more := beyond.fillna("").ne("")).any():  # a separator behind the last field is none too many
        raise UserError(f"{path.name} cannot be read: its header names {columns} columns, and line {2 + int(more.argmax())} has more")
    return table.fillna("")


def _unquoted(text: str) -> str:
    """Without the pair of quotation marks in which some programs write a field, its own marks doubled."""
    inner = text[1:-1]
    whole = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else text


def joined(texts: dict[str, list[str]]) -> list[str]:
    """All fields of :func:`read_item_texts` as one text an item."""
    return [" ".join(filter(None, fields)) for fields in zip(*texts.values())]


def tfidf() -> TfidfVectorizer:
    """Words and pairs of words of item texts, weighted; not fitted yet."""
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))


def part_field(part: str, texts: dict[str, list[str]], named: str | None) -> str:
    """The text field that holds the ``title`` or the ``category`` of the items.

    Args:
        named: by the user (setting ``title_field`` or ``category_field``), None to find it by its name.

    Raises:
        UserError: no such field, or none that looks like it.
    """
    if named is not None:
        if named not in texts:
            raise UserError(f"{part}_field={named}: no such text field{did_you_mean(named, texts)}; "
                            f"there are {', '.join(texts) or 'none'}")
        return named
    words = {name: re.sub("([a-z])([A-Z])", r"\1_\2", name).lower() for name in texts}
    for where in (r"(?<![a-z]){}", "{}"):  # at the beginning of a word, else anywhere
        for hint in PARTS[part]:
            for name in texts:
                if re.search(where.format(hint), words[name]):
                    return name
    raise UserError(f"no text field looks like a {part}: name one with --{part}_field=NAME; "
                    f"there are {', '.join(texts) or 'none'}")


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
    columns = {}
    for part in parts:
        if part not in PARTS and part not in texts:
            raise UserError(f"the template {template!r}: no text field {part!r}{did_you_mean(part, [*PARTS, *texts])}; "
                            f"there are {', '.join([*PARTS, *texts])}")
        literal = part in texts and named.get(part) is None
        try:
            columns[part] = texts[part if literal else part_field(part, texts, named[part])]
        except UserError as error:
            instead = f"; or write a template of these, such as {{{next(iter(texts))}}}" if texts else ""
            raise UserError(f"the template {template!r}: {error}{instead}") from error
    # blanks alone are no text
    return [template.format(**dict(zip(columns, row))).strip() if any(map(str.strip, row)) else "" for row in zip(*columns.values())]
