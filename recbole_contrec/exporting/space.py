"""
recbole_contrec.exporting.space
###############################
The space in which a model ranks: a vector of every item and one of every preference, whose inner product is the score.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_contrec.environment import package_versions
from recbole_contrec.errors import UserError
from recbole_contrec.interface import AnswersInWords, GeneratesPreferences, HasItemCodes
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.people import Person, as_interaction, known_people
from recbole_contrec.retrieval import columns, item_side, preference_side

ITEMS_AT_ONCE = 2**16  # whose vectors are made together
SAMPLE = 16  # users by whom it is seen whether the scores of a model of RecBole are products
FORMAT = 1  # of what is written; raised whenever it means something else


@dataclass(frozen=True)
class RankingSpace:
    """How a model scores: ``preferences(batch) @ items(first, last).T``, and terms beside it.

    Attributes:
        width: d' of the vectors.
        n_items: N, row 0 is the padding.
        columns: which of the columns are what, first and last one (exclusive) by name.
        repeat_bias: what the score of an item that the history holds gains beside the product; None for nothing.
        left_out: terms of the score that are neither in the product nor the repeat bias.
        items: vectors of the items from one number to another (exclusive), [m, d'].
        preferences: vectors of the histories of a batch [B, d'].
    """

    width: int
    n_items: int
    columns: dict[str, list[int]]
    repeat_bias: float | None
    left_out: list[str]
    items: Callable[[int, int], Tensor]
    preferences: Callable[[Interaction], Tensor]


def ranking_space(loaded: LoadedRun) -> RankingSpace:
    """The space in which a model ranks.

    Raises:
        UserError: its scores are no inner products.
    """
    model, name = loaded.model.eval(), loaded.config["model"]
    if isinstance(model, GeneratesPreferences):
        return _of_ours(loaded)
    table = getattr(model, "item_embedding", None)
    if not isinstance(model, SequentialRecommender) or not isinstance(table, nn.Embedding):
        raise _no_product(name)
    space = RankingSpace(
        table.embedding_dim,
        model.n_items,
        {"similarity": [0, table.embedding_dim]},
        None,
        [],
        lambda first, last: table.weight.detach()[first:last],
        torch.no_grad()(lambda batch: model.forward(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN])),
    )
    people = list(islice(known_people(loaded, None), SAMPLE))
    batch = as_interaction(loaded.config, people).to(loaded.config["device"])
    try:
        with torch.no_grad():
            wanted = model.full_sort_predict(batch).view(-1, model.n_items)
        found = space.preferences(batch) @ space.items(0, model.n_items).T
        same = found.shape == wanted.shape and torch.allclose(found[:, 1:], wanted[:, 1:], rtol=1e-3, atol=1e-4)
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, NotImplementedError):
        same = False
    if not same:
        raise _no_product(name)
    return space


def _of_ours(loaded: LoadedRun) -> RankingSpace:
    model, config = loaded.model, loaded.config
    retrieval, table = model.retrieval, model.item_vectors.weight
    if config.settings.get("num_samples") and config["num_samples"] > 1 and retrieval.pooling == "likelihood":
        raise UserError(
            f"{config['model']} joins num_samples={config['num_samples']} preferences by the log of their mean "
            "exponential, which is no inner product: --num_samples=1 or sample_pooling=mean has one"
        )
    left_out = []
    if isinstance(model, AnswersInWords) and model.can_answer:
        settings = (f"{key}={value:g}" for key in ("text_bonus", "text_weight") if (value := getattr(retrieval, key)))
        left_out = [f"{setting}: what answers in words add" for setting in settings]

    def preferences(batch: Interaction) -> Tensor:
        with torch.no_grad():
            found = preference_side(retrieval, model.generate_preferences(batch), batch[model.ITEM_SEQ])
        return found if found.dim() == 2 else found[0]

    return RankingSpace(
        sum(last - first for first, last in columns(retrieval, table.shape[1]).values()),
        len(table),
        columns(retrieval, table.shape[1]),
        None if retrieval.repeat_bias is None else retrieval.repeat_bias.item(),
        left_out,
        lambda first, last: item_side(retrieval, table[first:last], first),
        preferences,
    )


def _no_product(name: str) -> UserError:
    return UserError(
        f"{name}: its scores are no inner products of a preference and item vectors, and there are none to export. "
        "ContRec, DeftRec, TokenRec, SASRecAll and RecBole's SASRec, GRU4Rec and the like have them; TIGER, SIIT and "
        "TokenRec-beam have semantic ids"
    )


class Rows(NamedTuple):
    """Some items or users of an export."""

    ids: list[str]
    vectors: np.ndarray | None  # [m, d']
    codes: np.ndarray | None = None  # [m, K]    -1 for an item without codes


@dataclass(frozen=True)
class Export:
    """What is written of a model: rows of items, rows of users, and what tells how to read them.

    Attributes:
        metadata: JSON-like.
        items: makes the rows of the items, a part of the catalogue at a time.
        users: makes those of users, a batch at a time; None where no users are asked for.
    """

    metadata: dict[str, Any]
    items: Callable[[], Iterator[Rows]]
    users: Callable[[], Iterator[Rows]] | None


def export_of(loaded: LoadedRun, users: Sequence[str] | str | None = None, batch_size: int = 256) -> Export:
    """What there is to write of a model.

    Args:
        loaded: what ``load_data_and_model`` gave.
        users: ids of users whose preferences are wanted, by their whole history; ``all`` for every user, None for none.
        batch_size: users read at once.

    Raises:
        UserError: an unknown user, or a model with neither item vectors nor codes.
    """
    table = loaded.model.code_table if isinstance(loaded.model, HasItemCodes) else None
    space = None
    if table is None or isinstance(loaded.model, GeneratesPreferences):
        space = ranking_space(loaded)
    elif users is not None:
        raise UserError(
            f"{loaded.config['model']} writes semantic ids and has no preference vectors of users: leave --users and "
            "--all away"
        )
    people: Iterable[Person] = ()
    if users is not None:
        people = known_people(loaded, None if users == "all" else users)  # names are looked up at once
    return Export(
        metadata_of(loaded, space),
        lambda: _item_rows(loaded, space, table),
        None if users is None or space is None else lambda: _user_rows(loaded, space, people, batch_size),
    )


def _item_rows(loaded: LoadedRun, space: RankingSpace | None, table: Any) -> Iterator[Rows]:
    dataset = loaded.data.dataset
    names = dataset.field2id_token[dataset.iid_field]
    for first in range(1, len(names), ITEMS_AT_ONCE):
        last = min(first + ITEMS_AT_ONCE, len(names))
        codes = None
        if table is not None:
            codes = table.codes[first:last].cpu().numpy()
            codes = np.where(codes == table.unknown_code, -1, codes).astype(np.int32)
        vectors = None if space is None else _array(space.items(first, last))
        yield Rows([str(name) for name in names[first:last]], vectors, codes)


def _user_rows(loaded: LoadedRun, space: RankingSpace, people: Iterable[Person], batch_size: int) -> Iterator[Rows]:
    people = iter(people)
    while some := list(islice(people, batch_size)):
        batch = as_interaction(loaded.config, some).to(loaded.config["device"])
        yield Rows([person.name for person in some], _array(space.preferences(batch)))


def _array(vectors: Tensor) -> np.ndarray:
    return vectors.detach().float().cpu().numpy()


def metadata_of(loaded: LoadedRun, space: RankingSpace | None) -> dict[str, Any]:
    """What tells how to read an export, JSON-like; without a space there are codes alone."""
    found: dict[str, Any] = {
        "format": FORMAT,
        "model": loaded.config["model"],
        "dataset": loaded.config["dataset"],
        "versions": package_versions(),
    }
    if space is None:
        return found
    return {
        **found,
        "score": "inner product of the vectors of a user and of an item"
        + (" + repeat_bias for an item of the history" if space.repeat_bias is not None else ""),
        "columns": space.columns,
        "repeat_bias": space.repeat_bias,
        "left_out": space.left_out,
        "history": f"of every user the last {loaded.config['MAX_ITEM_LIST_LENGTH']} items are read",
        "seen_items": "are not left out: the score of an item of the history is that of any other",
    }
