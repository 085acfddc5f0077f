"""
recbole_contrec.recommendation
##############################
The best items for users of the data set, or for somebody new who brings a history; in batches, in bounded memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_contrec.data.sizes import SCORES
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.interface import AnswersInWords, RanksInBoundedMemory
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.reloading import load_data_and_model
from recbole_contrec.settings.classes import faults_of
from recbole_contrec.training.evaluation import no_score_is_the_worst

PADDING = "[PAD]"  # RecBole's name of row 0


class Person(NamedTuple):
    """Somebody to recommend items to."""

    name: str
    number: int  # of the user in the data set; 0 for somebody who is not in it
    history: np.ndarray  # item numbers in order of time


def recommend(
    checkpoint: str | LoadedRun,
    users: Sequence[str] | None = None,
    histories: Sequence[Sequence[str]] = (),
    k: int = 10,
    exclude_seen: bool = True,
    batch_size: int = 256,
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

    Returns:
        DataFrame: columns user_id, rank (from 1), item_id, score, the text fields of the items, and for a model that
            has learned to answer what it says about each user's next item (``answer``).

    Raises:
        UserError: unknown user or item (names the nearest), a text where a list is needed, or ``k`` below 1.
    """
    parts = list(recommend_batches(checkpoint, users, histories, k, exclude_seen, batch_size))
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
) -> Iterator[pd.DataFrame]:
    """:func:`recommend`, a batch of users at a time: for a million users, the result need not fit into memory."""
    for name, number in dict(k=k, batch_size=batch_size).items():
        if number < 1:
            raise UserError(f"{name}={number}: at least 1 is needed")
    for name, value in (("users", users), ("histories", histories), *(("a history", history) for history in histories)):
        if isinstance(value, str):  # its letters would pass for ids
            raise UserError(f"{name}: {value!r} is one text; give a list")
    loaded = load_data_and_model(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    loaded.model.eval()
    if not isinstance(loaded.model, RanksInBoundedMemory):
        _give_newcomers_a_row(loaded.model, loaded.data.dataset)
    people = chain(
        _known_people(loaded, [] if users is None and len(histories) else users),
        [Person(f"new-{place}", 0, _item_numbers(loaded, history)) for place, history in enumerate(histories, 1)],
    )
    while some := list(islice(people, batch_size)):
        with faults_of(loaded.config.entry):
            table = _recommend_batch(loaded, some, k, exclude_seen)
        yield table


def whole_histories(loaded: LoadedRun) -> dict[int, np.ndarray]:
    """Internal item numbers of every user in order of time, validation and test items included, whatever the split."""
    return loaded.data.dataset.all_interactions.by_user()


def _known_people(loaded: LoadedRun, users: Sequence[str] | None) -> Iterator[Person]:
    """Users of the data set with their whole history, one after the other; all of them for None.

    Raises:
        UserError: one is unknown; at once, not when it is his turn.
    """
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.uid_field]
    for user in map(str, () if users is None else users):
        if user not in numbers or user == PADDING:
            raise UserError(f"there is no user {user!r} in {loaded.config['dataset']!r}{did_you_mean(user, numbers)}")
    histories = whole_histories(loaded)
    chosen: Iterable[int] = histories if users is None else (numbers[str(user)] for user in users)
    nothing = np.empty(0, dtype=np.int64)
    return (
        Person(str(dataset.id2token(dataset.uid_field, number)), number, histories.get(number, nothing))
        for number in chosen
    )


def _item_numbers(loaded: LoadedRun, history: Sequence[str]) -> np.ndarray:
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.iid_field]
    history = [str(item) for item in history]
    for item in history:
        if item not in numbers or item == PADDING:
            raise UserError(f"there is no item {item!r} in {loaded.config['dataset']!r}{did_you_mean(item, numbers)}")
    if not history:
        raise UserError("the history is empty: name at least one item")
    if not isinstance(loaded.model, SequentialRecommender):
        raise UserError(
            f"{loaded.config['model']} reads user ids, not histories: it has nothing to say about new users"
        )
    return np.asarray([numbers[item] for item in history])


def _recommend_batch(loaded: LoadedRun, people: Sequence[Person], k: int, exclude_seen: bool) -> pd.DataFrame:
    model, dataset, config = loaded.model, loaded.data.dataset, loaded.config
    k = min(k, dataset.item_num - 1)
    interaction = as_interaction(config, people).to(config["device"])
    excluded = seen_items(people).to(config["device"])  # [B, E]
    excluded = excluded if exclude_seen else torch.zeros_like(excluded[:, :1])
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

    listed = (items > 0).cpu().numpy()
    row, rank = np.nonzero(listed)
    chosen = items.cpu().numpy()[listed]
    table = {
        "user_id": [people[r].name for r in row.tolist()],
        "rank": rank + 1,
        "item_id": dataset.id2token(dataset.iid_field, chosen),
        "score": scores.cpu().numpy()[listed],
    }
    taken = {*table, "answer"} if answers is not None else {*table}
    for field, texts in dataset.item_texts.items():
        table[f"item_{field}" if field in taken else field] = [texts[item] for item in chosen]
    if answers is not None:
        table["answer"] = [answers[r] for r in row]
    return pd.DataFrame(table)


def as_interaction(config: Any, people: Sequence[Person]) -> Interaction:
    """RecBole's evaluation rows for some people: the last L items, padded at the end."""
    limit = config["MAX_ITEM_LIST_LENGTH"]
    sequences = torch.zeros(len(people), limit, dtype=torch.long)
    lengths = torch.ones(len(people), dtype=torch.long)
    for row, person in enumerate(people):
        recent = torch.from_numpy(np.asarray(person.history[-limit:]))
        sequences[row, : len(recent)] = recent
        lengths[row] = max(len(recent), 1)
    return Interaction(
        {
            config["USER_ID_FIELD"]: torch.tensor([person.number for person in people]),
            config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]: sequences,
            config["ITEM_LIST_LENGTH_FIELD"]: lengths,
        }
    )


def seen_items(people: Sequence[Person]) -> torch.Tensor:
    """All that some people have had, [B, longest history], 0 = none."""
    longest = max([1, *(len(person.history) for person in people)])
    seen = torch.zeros(len(people), longest, dtype=torch.long)
    for row, person in enumerate(people):
        seen[row, : len(person.history)] = torch.from_numpy(np.asarray(person.history))
    return seen


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
