"""
recbole_contrec.recommendation
##############################
The best items for users of the data set, or for somebody new who brings a history; in batches, in bounded memory.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from recbole_contrec.data.sizes import SCORES
from recbole_contrec.errors import UserError
from recbole_contrec.interface import AnswersInWords, RanksByItemVectors, RanksInBoundedMemory
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.packages import require
from recbole_contrec.people import Person, as_interaction, item_numbers, known_people, seen_items, whole_histories
from recbole_contrec.reloading import load_data_and_model
from recbole_contrec.settings.classes import faults_of
from recbole_contrec.training.evaluation import no_score_is_the_worst

__all__ = [
    "Person",
    "Ranked",
    "check_index",
    "check_lists",
    "item_numbers",
    "known_people",
    "rank_batches",
    "recall_of_index",
    "recommend",
    "recommend_batches",
    "whole_histories",
]

EXACT = "exact"
INDEXES = (EXACT, "hnsw")
SAMPLE = 64  # users of whom it is told what an index finds
index_logger = logging.getLogger("recbole_contrec.index")


class Ranked(NamedTuple):
    """The best items of some people, best first."""

    people: Sequence[Person]
    items: np.ndarray  # [B, k]   item numbers, 0 where too few are left
    scores: np.ndarray  # [B, k]
    answers: list[str] | None  # [B]      what a model says that has learned to answer


def recommend(
    checkpoint: str | LoadedRun,
    users: Sequence[str] | None = None,
    histories: Sequence[Sequence[str]] = (),
    k: int = 10,
    exclude_seen: bool = True,
    batch_size: int = 256,
    index: str = "exact",
    ef_search: int = 200,
) -> pd.DataFrame:
    """The K best items for each user.

    Args:
        checkpoint: path of a checkpoint or of a run's folder, or what ``load_data_and_model`` gave.
        users: original user ids; None for every user of the data set (without ``histories``). Their whole history
            is read, validation and test item included.
        histories: item ids in order of time for people who are not in the data set; they are named
            ``new-1``, ``new-2`` ... in the result.
        k: items a user.
        exclude_seen: leave out what the history holds.
        batch_size: users scored at once.
        index: ``exact`` goes through the whole catalogue; ``hnsw`` searches a graph of the item vectors for candidates
            and ranks these exactly, see :meth:`~recbole_contrec.retrieval.Retrieval.searching`.
        ef_search: candidates of ``hnsw``.

    Returns:
        DataFrame: columns user_id, rank (from 1), item_id, score, the text fields of the items, and for a model that
            has learned to answer what it says about each user's next item (``answer``).

    Raises:
        UserError: unknown user or item (names the nearest), a text where a list is needed, ``k`` below 1, or ``hnsw``
            without faiss or for a model that does not rank by item vectors.
    """
    parts = list(recommend_batches(checkpoint, users, histories, k, exclude_seen, batch_size, index, ef_search))
    return (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["user_id", "rank", "item_id", "score"])
    )


def recommend_batches(
    checkpoint: str | LoadedRun,
    users: Sequence[str] | None = None,
    histories: Sequence[Sequence[str]] = (),
    k: int = 10,
    exclude_seen: bool = True,
    batch_size: int = 256,
    index: str = "exact",
    ef_search: int = 200,
) -> Iterator[pd.DataFrame]:
    """:func:`recommend`, a batch of users at a time: for a million users, the result need not fit into memory."""
    _check_counts(k=k, batch_size=batch_size, ef_search=ef_search)
    check_lists(users=users, histories=histories)
    loaded = load_data_and_model(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    people = chain(
        known_people(loaded, [] if users is None and len(histories) else users),
        [Person(f"new-{place}", 0, item_numbers(loaded, history)) for place, history in enumerate(histories, 1)],
    )
    for ranked in rank_batches(loaded, people, k, exclude_seen, batch_size, index, ef_search):
        yield _as_table(loaded, ranked)


def check_lists(**given: Any) -> None:
    """Refuse what is no list of names, or of such lists. A text is none: its letters would pass for ids.

    Raises:
        UserError: names it.
    """
    for name, value in given.items():
        if value is None:
            continue
        outer = isinstance(value, Iterable) and not isinstance(value, str)
        inner = value if outer and name != "users" else ()
        for what, one in ((name, value), *(("a history", one) for one in inner)):
            if isinstance(one, str):
                raise UserError(f"{what}: {one!r} is one text; give a list")
            if not isinstance(one, Iterable):
                raise UserError(f"{what}: {one!r} is no list of ids")


def _check_counts(**given: int) -> None:
    for name, number in given.items():
        if not isinstance(number, Integral):
            raise UserError(f"{name}={number!r}: a whole number is needed")
        if number < 1:
            raise UserError(f"{name}={number}: at least 1 is needed")


def rank_batches(
    loaded: LoadedRun,
    people: Iterable[Person],
    k: int = 10,
    exclude_seen: bool = True,
    batch_size: int = 256,
    index: str = EXACT,
    ef_search: int = 200,
) -> Iterator[Ranked]:
    """The K best items of people, a batch of them at a time; the arguments are those of :func:`recommend`.

    Raises:
        UserError: as :func:`recommend`.
    """
    _check_counts(k=k, batch_size=batch_size, ef_search=ef_search)
    loaded.model.eval()
    if not isinstance(loaded.model, RanksInBoundedMemory):
        _give_newcomers_a_row(loaded.model, loaded.data.dataset)
    people = iter(people)
    first = True
    with _searching(loaded, index, ef_search):
        while some := list(islice(people, batch_size)):
            with faults_of(loaded.config.entry):
                if first and index != EXACT:
                    _tell_recall(loaded, some[:SAMPLE], k, exclude_seen, ef_search)
                ranked = _rank(loaded, some, k, exclude_seen)
            first = False
            yield ranked


def check_index(model: Any, name: str, index: str) -> None:
    """Whether the lists of a model can come from an index.

    Raises:
        UserError: it has no such index, faiss is missing, or there is no such search.
    """
    if index not in INDEXES:
        raise UserError(f"index={index}: choose one of {', '.join(INDEXES)}")
    if index == EXACT:
        return
    if not isinstance(model, RanksByItemVectors):
        raise UserError(
            f"{name} does not rank by item vectors, which --index={index} searches: ContRec, DeftRec and TokenRec do"
        )
    require("faiss", f"--index={index}")


def _searching(loaded: LoadedRun, index: str, ef_search: int) -> AbstractContextManager[None]:
    check_index(loaded.model, loaded.config["model"], index)
    if index == EXACT:
        return nullcontext()
    return loaded.model.retrieval.searching(loaded.model.item_vectors.weight, ef_search)


def recall_of_index(loaded: LoadedRun, people: Sequence[Person], k: int, exclude_seen: bool) -> float:
    """Share of the exact best K items of some people that the index finds, inside
    :meth:`~recbole_contrec.retrieval.Retrieval.searching`."""
    interaction, excluded = _asked(loaded, people, exclude_seen)
    k, model = min(k, loaded.data.dataset.item_num - 1), loaded.model
    with torch.no_grad():
        encoding = model.encode_histories(interaction)
        found = model.top_k(interaction, k, excluded, encoding)[1]
        graph, model.retrieval.approximate = model.retrieval.approximate, None
        try:
            wanted = model.top_k(interaction, k, excluded, encoding)[1]
        finally:
            model.retrieval.approximate = graph
    hits = (wanted[:, :, None] == found[:, None]).any(2) & (wanted > 0)  # [n, k]
    return float(hits.sum() / (wanted > 0).sum().clamp(min=1))


def _tell_recall(loaded: LoadedRun, people: Sequence[Person], k: int, exclude_seen: bool, ef_search: int) -> None:
    recall = recall_of_index(loaded, people, k, exclude_seen)
    index_logger.info(
        "hnsw, ef_search=%d: %.2f %% of the exact top %d of the first %d users are found%s",
        ef_search,
        100 * recall,
        k,
        len(people),
        "" if recall >= 0.99 else "; a larger ef_search finds more",
    )


def _rank(loaded: LoadedRun, people: Sequence[Person], k: int, exclude_seen: bool) -> Ranked:
    """The best items of one batch of people."""
    model, dataset = loaded.model, loaded.data.dataset
    k = min(k, dataset.item_num - 1)
    interaction, excluded = _asked(loaded, people, exclude_seen)
    answers = None
    with torch.no_grad():
        if isinstance(model, AnswersInWords) and model.can_answer:
            encoding = model.encode_histories(interaction, answer=True)
            answers = model.answers(interaction, encoding)
            scores, items = model.top_k(interaction, k, excluded, encoding)
        elif isinstance(model, RanksInBoundedMemory):
            scores, items = model.top_k(interaction, k, excluded)
        else:
            at_once = max(SCORES // (4 * dataset.item_num), 1)  # users whose scores are held together
            parts = [slice(start, start + at_once) for start in range(0, len(people), at_once)]
            found = [_top_k_of_all(loaded, interaction[part], k, excluded[part]) for part in parts]
            scores, items = map(torch.cat, zip(*found))
    return Ranked(people, items.cpu().numpy(), scores.cpu().numpy(), answers)


def _as_table(loaded: LoadedRun, ranked: Ranked) -> pd.DataFrame:
    """One row for each item of each list, with the texts of the items."""
    dataset, answers = loaded.data.dataset, ranked.answers
    row, rank = np.nonzero(ranked.items > 0)
    chosen = ranked.items[row, rank]
    table = {
        "user_id": [ranked.people[r].name for r in row.tolist()],
        "rank": rank + 1,
        "item_id": dataset.id2token(dataset.iid_field, chosen),
        "score": ranked.scores[row, rank],
    }
    taken = {*table, "answer"} if answers is not None else {*table}
    for field, texts in dataset.item_texts.items():
        table[f"item_{field}" if field in taken else field] = [texts[item] for item in chosen]
    if answers is not None:
        table["answer"] = [answers[r] for r in row]
    return pd.DataFrame(table)


def _asked(loaded: LoadedRun, people: Sequence[Person], exclude_seen: bool) -> tuple[Interaction, torch.Tensor]:
    """What a model is asked about some people: RecBole's rows, and the items [B, E] that it may not name, 0 = none."""
    device = loaded.config["device"]
    excluded = seen_items(people).to(device)
    excluded = excluded if exclude_seen else torch.zeros_like(excluded[:, :1])
    return as_interaction(loaded.config, people).to(device), excluded


def _top_k_of_all(
    loaded: LoadedRun, interaction: Interaction, k: int, excluded: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Top K by RecBole's contract: scores [B, N] of the whole catalogue, from ``predict`` where nothing else is."""
    model, n_items = loaded.model, loaded.data.dataset.item_num
    try:
        try:
            scores = model.full_sort_predict(interaction).view(-1, n_items).clone()
        except NotImplementedError:
            scores = torch.stack(
                [_scores_by_predict(loaded, interaction[row : row + 1], n_items) for row in range(len(interaction))]
            )
    except KeyError as error:
        raise UserError(
            f"{type(model).__name__} reads {error}, which histories of items do not have: it cannot be "
            "asked for recommendations here"
        ) from error
    scores = no_score_is_the_worst(scores, type(model).__name__)
    scores.scatter_(1, excluded, -torch.inf)
    scores[:, 0] = -torch.inf
    best, items = scores.topk(min(k, n_items - 1), dim=1)
    return best, items.masked_fill(best == -torch.inf, 0)


def _scores_by_predict(loaded: LoadedRun, person: Interaction, n_items: int) -> torch.Tensor:
    """Scores of the whole catalogue [N] for one person, item by item."""
    items = torch.arange(n_items, device=person[loaded.config["USER_ID_FIELD"]].device)
    pairs = person.repeat_interleave(n_items)
    pairs.update(Interaction({loaded.config["ITEM_ID_FIELD"]: items}))
    return loaded.model.predict(pairs).view(-1)  # [N]


@torch.no_grad()
def _give_newcomers_a_row(model: torch.nn.Module, dataset: Any) -> None:
    """Somebody new reads row 0 of a table of users, which RecBole's models never train: it becomes the mean of the
    others.

    A table of users is told from one of items by its rows, and where there are as many of both, by its name.
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, torch.nn.Embedding)
            and module.num_embeddings == dataset.user_num
            and (dataset.user_num != dataset.item_num or "user" in name.lower())
        ):
            module.weight[0] = module.weight[1:].mean(0)
