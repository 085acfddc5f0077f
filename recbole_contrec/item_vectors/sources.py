"""
recbole_contrec.item_vectors.sources
####################################
Vectors of users and items: what the tokenizers turn into tokens. They come from training interactions and from texts of
the items; no validation or test item of anybody has a say in them.
"""

import glob
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from recbole_contrec.data.text import WORD, joined, unspaced
from recbole_contrec.data.windows import WindowDataset
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.item_vectors.lightgcn import lightgcn_vectors
from recbole_contrec.item_vectors.pca import principal_components
from recbole_contrec.item_vectors.text_encoder import text_encoder_of
from recbole_contrec.item_vectors.words import text_vectors, words_of
from recbole_contrec.showing import show
from recbole_contrec.storage.stages import Report, Stage, StageResult
from recbole_contrec.tokenizer import (
    CollaborativeVectors,
    history_means,
    load_vectors,
    seen_rows,
    standardise,
    svd_vectors,
)

METHODS = ("svd", "lightgcn", "text")
SOURCES = ("item_vectors", "item_descriptions")  # settings that name methods or a file
WORDS = "words"  # item_descriptions by the words of the texts, which are no vectors
ITEM_TEXTS = "item texts"  # the stage in which the text_encoder reads them
PROJECTED = 384  # columns of words before they are whitened
# Of whitened ones: n texts span n - 1 directions, and where all of these are whitened, every text is as far from every
# other one, whatever they say.
TEXTS_A_COLUMN = 4


def vector_stages(
    config: Mapping[str, Any], dataset: WindowDataset, found: dict[str, torch.Tensor], key: str = "item_vectors"
) -> Iterator[Stage]:
    """The stages that fill ``found`` with ``users`` [U, d] and ``items`` [N, d], see :func:`user_and_item_vectors`;
    before these, those of :func:`text_stages`."""
    yield from text_stages(config, dataset, found)
    methods, keys = methods_of(config[key]), [key, "vector_size", "seed"]
    content = source_content(config[key], dataset, key)
    keys += ["lightgcn_epochs"] if "lightgcn" in methods else []
    keys += ["text_whitening"] if "text" in methods and config["text_whitening"] else []

    def build(report: Report) -> StageResult:
        return StageResult(user_and_item_vectors(config, dataset, report, found.get("texts"), key)._asdict(), {})

    yield Stage(
        key.replace("_", " "), {**{name: config[name] for name in keys}, "content": content}, build, found.update
    )


def text_stages(config: Mapping[str, Any], dataset: WindowDataset, found: dict[str, torch.Tensor]) -> Iterator[Stage]:
    """The stage that fills ``found`` with ``texts`` [N, D], the item texts as ``text_encoder`` reads them.

    There is none where no encoder is named, nothing asks for texts, or ``found`` has them. It is slow, and its result
    is the same for all seeds and widths: so it is a stage of its own, in front of all that depend on these.
    """
    reading = _readers(config)
    if not config["text_encoder"] or not reading or "texts" in found:
        return
    settings = {
        "encoder": text_encoder_of(config).identity,
        "tokens": config["text_encoder_max_tokens"],
        "content": source_content("text", dataset),
    }
    yield Stage(
        ITEM_TEXTS,
        settings,
        lambda report: _encoded_item_texts(config, dataset, report, reading[0]),
        found.update,
    )


def _readers(config: Mapping[str, Any]) -> list[str]:
    """The settings by which item texts are read."""
    found = [name for name in SOURCES if config[name] and "text" in methods_of(config[name])]
    compared = "text_similarity" in config and config["text_similarity"] != 0  # not all models have the setting
    return found + ["text_similarity"] * compared


def text_similarity_stage(
    config: Mapping[str, Any],
    dataset: WindowDataset,
    found: Mapping[str, torch.Tensor],
    size: int,
    accept: Callable[[dict[str, torch.Tensor]], None],
) -> Stage:
    """The stage that makes ``vectors`` [N, size] by which texts are compared: whitened, zero for items without a text.

    Where there are few different texts, the last columns are zero, see :data:`TEXTS_A_COLUMN`.

    Args:
        found: holds ``texts`` [N, D] where a ``text_encoder`` has read them; else their words count, see
            :func:`words_of`.
        accept: as that of a stage.
    """
    different = {text for text in joined(dataset.item_texts) if text.strip()}
    columns = max(1, min(size, len(different) // TEXTS_A_COLUMN))
    settings = {"width": columns, "seed": config["seed"], "content": source_content("text", dataset)}

    def build(report: Report) -> StageResult:
        texts = found.get("texts")
        if texts is None:
            texts = words_of(_item_texts(config, dataset, "text_similarity"), PROJECTED, config["seed"])
        vectors = principal_components(texts, columns, whitening=1.0)
        if config["text_similarity"] and not vectors.any():
            raise UserError(
                f"text_similarity={config['text_similarity']:g}: the item texts of {config['dataset']!r} tell no two "
                "items apart; set text_similarity=0"
            )
        return StageResult(
            {"vectors": F.pad(vectors, (0, size - columns))}, {"texts": len(different), "columns": columns}
        )

    return Stage("text similarity", settings, build, accept)


def user_and_item_vectors(
    config: Mapping[str, Any],
    dataset: WindowDataset,
    report: Report,
    encoded: torch.Tensor | None = None,
    key: str = "item_vectors",
) -> CollaborativeVectors:
    """Vectors of about unit variance a coordinate, rows by internal number, row 0 (padding) zero.

    Args:
        config: reads ``key`` (``svd``, ``lightgcn``, ``text``, two of them as ``svd+text``, which share the width,
            or the path of a ``.npy`` file keyed by item token), ``vector_size``, ``lightgcn_epochs``,
            ``text_whitening``, ``seed``.
        dataset: its training histories are the only interactions used.
        report: called as the work goes on.
        encoded: item texts [N, D] as a language model has read them, in place of their TF-IDF.
        key: the setting that says where they come from, one of ``SOURCES``.

    Raises:
        UserError: the file cannot be used, there are no texts, or the vectors tell no items apart; says why.
    """
    source, size = config[key], config["vector_size"]
    methods = methods_of(source)
    if methods:
        parts = [
            _standardised(_vectors_by(method, size // len(methods), config, dataset, report, encoded, key))
            for method in methods
        ]
        vectors = CollaborativeVectors(*(torch.cat(columns, dim=1) for columns in zip(*parts)))
    else:
        vectors = _standardised(_with_history_means(_vectors_from_file(source, size, dataset, key), dataset))
    if seen_rows(vectors.items).sum() < 2:
        raise UserError(f"{key}={source} gives all items of {config['dataset']!r} the same vector")
    return vectors


def methods_of(source: str) -> list[str]:
    """The methods that ``item_vectors`` or ``item_descriptions`` names; none where it names a file."""
    names = source.split("+")
    return names if set(names) <= set(METHODS) else []


def text_columns(source: str, size: int) -> range:
    """Which of the ``size`` columns of vectors by ``source`` are made of texts; none where it names no texts."""
    methods = methods_of(source)
    if "text" not in methods:
        return range(0)
    first, width = methods.index("text"), size // len(methods)
    return range(first * width, (first + 1) * width)


def check_names(config: Mapping[str, Any]) -> None:
    """Stop before data are read where a source is misspelt, or a file that is not there.

    Raises:
        UserError: names the nearest method.
    """
    for key in SOURCES:
        source = config[key]  # None in models without it
        if source and not methods_of(source) and not (key == "item_descriptions" and source == WORDS):
            _check_file(source, key)


def check_source(config: Mapping[str, Any], dataset: WindowDataset, key: str = "item_vectors") -> None:
    """Stop before anything is computed or written where vectors cannot be had.

    Raises:
        UserError: ``key`` names neither methods nor a file, the file does not fit the data, its parts cannot share
            ``vector_size``, a ``text_encoder`` would have nothing to read or is not there, or the data have no texts.
    """
    source, size = config[key], config["vector_size"]
    methods = methods_of(source)
    if not methods:
        _check_file(source, key)
        _vectors_from_file(source, size, dataset, key)
    if len(set(methods)) < len(methods) or methods and size % len(methods):
        raise UserError(f"{key}={source}: {len(methods)} different parts must share vector_size={size} evenly")
    if config["text_encoder"] and not _readers(config):
        raise UserError(
            f"text_encoder={show(config['text_encoder'])} reads item texts, and item_vectors={source} asks for "
            "none: set item_vectors=text or svd+text, or text_encoder=~"
        )
    if config["text_encoder"] is None and config["random_weights"] in ("text_encoder", "both"):
        raise UserError(f"random_weights={config['random_weights']}: name the architecture by text_encoder as well")
    if config["text_whitening"] and not any("text" in methods_of(config[name]) for name in SOURCES if config[name]):
        raise UserError(
            f"text_whitening={config['text_whitening']:g} is of item texts, and item_vectors={source} reads none: set "
            "item_vectors=text or svd+text, or text_whitening=0"
        )
    asked = [key] * ("text" in methods) + [name for name in ("text_similarity", "text_encoder") if config[name]]
    if asked:
        _item_texts(config, dataset, asked[0])
        if config["text_encoder"]:
            text_encoder_of(config)


def source_content(source: str, dataset: WindowDataset, key: str = "item_vectors") -> str | None:
    """Hash of the files or texts behind a source, so that changed ones are not mistaken for the old ones.

    Raises:
        UserError: there is no such file.
    """
    methods = methods_of(source)
    if methods:
        if "text" not in methods:
            return None
        texts = joined(dataset.item_texts)
        read_as = "\0".join([*texts, WORD] if unspaced(texts) else texts)  # the same as before where all have blanks
        return hashlib.sha256(read_as.encode()).hexdigest()
    _check_file(source, key)
    return file_content(Path(source))


def file_content(path: Path) -> str:
    """Hash of a file keyed by item, and of the names of its items beside it (``FILE.tokens.txt``)."""
    digest = hashlib.sha256(path.read_bytes())
    for beside in sorted(path.parent.glob(f"{glob.escape(path.stem)}.tokens*")):
        digest.update(beside.read_bytes())
    return digest.hexdigest()


def _check_file(source: str, key: str) -> None:
    if not Path(source).is_file():
        names = (*METHODS, WORDS) if key == "item_descriptions" else METHODS
        wrong = next((part for part in source.split("+") if part not in names), source)
        raise UserError(f"{key}={source}: neither a file nor one of {', '.join(names)}{did_you_mean(wrong, names)}")


def _vectors_by(
    method: str,
    size: int,
    config: Mapping[str, Any],
    dataset: WindowDataset,
    report: Report,
    encoded: torch.Tensor | None,
    key: str,
) -> CollaborativeVectors:
    if method == "svd":
        return svd_vectors(*dataset.histories.pairs(), dataset.user_num, dataset.item_num, size, seed=config["seed"])
    if method == "lightgcn":
        return lightgcn_vectors(size, config, dataset, report)
    whitening = config["text_whitening"]
    if encoded is not None:
        vectors = principal_components(encoded, size, whitening)
        if not vectors.any():
            raise UserError(
                f"text_encoder={config['text_encoder']} reads the same words from every item text: raise "
                f"text_encoder_max_tokens={config['text_encoder_max_tokens']}, or bring other texts (text_fields)"
            )
        return _with_history_means(vectors, dataset)
    vectors = text_vectors(_item_texts(config, dataset, key), size, config["seed"], key)
    return _with_history_means(principal_components(vectors, size, whitening) if whitening else vectors, dataset)


def _item_texts(config: Mapping[str, Any], dataset: WindowDataset, key: str) -> list[str]:
    """One text an item [N], at least one of them not empty.

    Raises:
        UserError: there is none.
    """
    texts = joined(dataset.item_texts)
    if not any(text.strip() for text in texts):
        lack = "has item texts, but all are empty" if texts else "has no item texts (a .item file with text columns)"
        without = {"text_similarity": "0", "text_encoder": "~"}.get(key, "svd")
        raise UserError(f"{key}={config[key]}: {config['dataset']!r} {lack}; set {key}={without}")
    return texts


def _encoded_item_texts(config: Mapping[str, Any], dataset: WindowDataset, report: Report, key: str) -> StageResult:
    """What ``text_encoder`` makes of the item texts, ``texts`` [N, D], with figures that tell how much of them it
    read."""
    encoder = text_encoder_of(config)
    tokenised = encoder.tokenise(_item_texts(config, dataset, key), report)
    lengths = tokenised.lengths[tokenised.lengths > 0]
    if not len(lengths):
        raise UserError(f"text_encoder={config['text_encoder']}: its tokenizer finds no token in any item text")
    vectors = encoder.encode(tokenised, report)
    at_the_cut = float((lengths == config["text_encoder_max_tokens"]).mean())
    return StageResult(
        {"texts": vectors},
        {
            "texts": len(lengths),
            "tokens": float(lengths.mean()),
            "share_at_the_cut": at_the_cut,
            "width": vectors.shape[1],
        },
    )


def _standardised(vectors: CollaborativeVectors) -> CollaborativeVectors:
    return CollaborativeVectors(standardise(vectors.users), standardise(vectors.items))


def _with_history_means(items: torch.Tensor, dataset: WindowDataset) -> CollaborativeVectors:
    return CollaborativeVectors(history_means(*dataset.histories.pairs(), items, dataset.user_num), items)


def _vectors_from_file(path: str, size: int, dataset: WindowDataset, key: str) -> torch.Tensor:
    try:
        loaded = load_vectors(path, [str(token) for token in dataset.field2id_token[dataset.iid_field]])
    except (OSError, ValueError) as error:
        raise UserError(f"{key}={path}: {error}") from error
    if loaded.vectors.shape[1] != size:
        raise UserError(
            f"{key}={path} has vectors of width {loaded.vectors.shape[1]}: set --vector_size={loaded.vectors.shape[1]}"
        )
    return loaded.vectors
