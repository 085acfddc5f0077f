"""
recbole_contrec.fold_in
#######################
Items that were not in training: from their first interactions or from their texts they get vectors and tokens, while
tokenizer and language model stay as they are. (New *users* need no call: models fold their histories in by themselves.)
"""

from pathlib import Path
from typing import Iterable, Mapping, NamedTuple, Sequence

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from recbole_contrec.data.text import joined, tfidf
from recbole_contrec.data.text_encoder import TextEncoder, text_encoder_of
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.identity import Identity
from recbole_contrec.quick_start import LoadedRun
from recbole_contrec.recommendation import as_interaction
from recbole_contrec.stages import run_stages
from recbole_contrec.tokenizer import CollaborativeVectors, EarlyItems

PADDING = "[PAD]"  # RecBole's name of row 0
PLACES = 10        # of a list, over which the exposure of new items is counted
USERS = 1024       # of training, whose lists are looked at for that


def fold_in_interactions(loaded: LoadedRun, users_of: Mapping[str, Sequence[str]], early: bool = True,
                         exposure: float | None = 1.0) -> None:
    """Give items vectors and tokens from the users who interacted with them since.

    Args:
        loaded: what ``load_data_and_model`` gave; its model and catalogue are changed in memory, no file is. Histories
            stay what they are: the new item does not become part of those of its users.
        users_of: for every item its users; those without a training interaction add nothing. Items that the data set does
            not know are added to the catalogue.
        early: whether more users will follow. Then an item is placed where items of training are that looked like it when
            only as many of their users were known (:class:`EarlyItems`); otherwise as if these were all that it ever
            gets, which leaves an item with few users where the rarest items are.
        exposure: how much of the first ten places, over users of training, all items folded in so far may fill, as a
            multiple of their share of the catalogue. Their scores are lowered by one number for that. None lowers none.

    Raises:
        UserError: a user that the data set does not know, an item all of whose users had no training interaction or that
            was in training itself, or a model that cannot take new items.
    """
    known = _known(loaded)
    users_of = {str(item): users for item, users in users_of.items()}
    _refuse_known(loaded, known, users_of)
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.uid_field]
    partners = torch.zeros(len(users_of), max(map(len, users_of.values()), default=0), dtype=torch.long)
    for row, (item, users) in enumerate(users_of.items()):
        if isinstance(users, str):
            raise UserError(f"item {item!r}: {users!r} is one text; give a list of users")
        for place, user in enumerate(map(str, users)):
            if user not in numbers or user == PADDING:
                raise UserError(f"there is no user {user!r} in {loaded.config['dataset']!r}{did_you_mean(user, numbers)}")
            partners[row, place] = numbers[user]
    fold_in = EarlyItems(known.vectors, *dataset.histories.pairs(), loaded.config["seed"])
    vectors = fold_in(partners) if early else fold_in.fold_in(partners)           # [m, d]
    for item, vector in zip(users_of, vectors):
        if not vector.any():
            raise UserError(f"item {item!r} cannot be folded in: none of its users had a training interaction")
    _add(loaded, known, list(users_of), vectors, exposure)


def fold_in_texts(loaded: LoadedRun, texts: Mapping[str, str] | None = None, exposure: float | None = 1.0) -> list[str]:
    """Give items vectors and tokens from their texts: ridge regression from TF-IDF, or from what ``text_encoder`` makes of
    the texts, to collaborative vectors, learned on the items of training.

    Args:
        loaded: what ``load_data_and_model`` gave; its model and catalogue are changed in memory, no file is.
        texts: for every item its text. None takes the items of the data set that were not in training and have a text
            that can be read: one with a word that items of training have, or any at all for a ``text_encoder``.
        exposure: as in :func:`fold_in_interactions`.

    Returns:
        list: the items.

    Raises:
        UserError: the data set has no texts, a text cannot be read, an item was in training, or a model that cannot take
            new items.
    """
    known = _known(loaded)
    dataset = loaded.data.dataset
    if not dataset.item_texts:
        raise UserError(f"{loaded.config['dataset']!r} has no item texts (a .item file with text columns)")
    all_texts = joined(dataset.item_texts)                                        # [N]
    given = {str(item): text for item, text in texts.items()} if texts is not None else {
        str(name): text for row, (name, text) in enumerate(zip(dataset.field2id_token[dataset.iid_field], all_texts))
        if row and not (row < len(known.items) and known.items[row])}
    _refuse_known(loaded, known, given)
    rows = known.items.nonzero().squeeze(1).tolist()
    reader = _reader(loaded, known, rows, [all_texts[row] for row in rows])
    readable = reader.readable([text or "" for text in given.values()]) if given else np.zeros(0, dtype=bool)    # [m]
    if texts is not None and not readable.all():
        raise UserError(reader.unreadable.format(list(given)[readable.argmin()]))
    given = {item: text for (item, text), can in zip(given.items(), readable) if can}
    if given:
        regression = Ridge(alpha=1.0).fit(reader.known, known.vectors.items[rows].numpy())
        vectors = regression.predict(reader(list(given.values())))
        _add(loaded, known, list(given), torch.from_numpy(vectors.astype(np.float32)), exposure)
    return list(given)


class _Known(NamedTuple):
    """What training knew: vectors of users [U, d] and items [N, d], which items [N] had an interaction, and the
    ``text_encoder`` with what it made of the item texts [N, D], where there is one. ``new`` are the numbers of the items that
    were folded in since."""

    vectors: CollaborativeVectors
    items: Tensor
    encoder: TextEncoder | None
    texts: Tensor | None
    new: set[int]


def _known(loaded: LoadedRun) -> _Known:
    """Of a run, before anything was folded in: later calls go on from the same vectors."""
    if loaded.known is not None:
        return loaded.known
    if not getattr(loaded.model, "folds_items_in", False):
        raise UserError(f"{loaded.config['model']} cannot fold in items that were not in training")
    dataset = loaded.data.train_dataset
    vectors: dict[str, Tensor] = {}
    stages = loaded.model.vector_stages(dataset, vectors)  # on disk, if the run left them there
    data = Identity.of(loaded.data.dataset).with_histories(dataset.histories)
    run_stages(stages, data, Path(loaded.config["checkpoint_dir"]) / "stages")
    items = torch.zeros(len(vectors["items"]), dtype=torch.bool)
    items[dataset.histories.items] = True
    encoder = text_encoder_of(loaded.config) if "texts" in vectors else None
    loaded.known = _Known(CollaborativeVectors(vectors["users"], vectors["items"]), items, encoder, vectors.get("texts"), set())
    return loaded.known


def _reader(loaded: LoadedRun, known: _Known, rows: list[int], texts: list[str]) -> "_Words | _Readings":
    """What turns texts into features of the regression, made for the items of training, ``rows`` [n] with ``texts`` [n]."""
    if known.encoder is None:
        return _Words(loaded.config["dataset"], texts)
    return _Readings(loaded.config["dataset"], known.encoder, known.texts[rows])


class _Words:
    """Texts as TF-IDF of the words that items of training have.

    Args:
        texts: of the items of training [n].

    Raises:
        UserError: they hold no words.
    """

    unreadable = "no word of the text of {!r} stands in that of an item of training"

    def __init__(self, dataset: str, texts: list[str]):
        self.vectoriser = tfidf()
        try:
            self.known = self.vectoriser.fit_transform(texts)                     # [n, words]
        except ValueError as error:
            raise UserError(f"the item texts of {dataset!r} hold no words to learn from") from error

    def readable(self, texts: list[str]) -> np.ndarray:
        """Which of some texts hold something to go by [m]."""
        return self.vectoriser.transform(texts).getnnz(axis=1) > 0

    def __call__(self, texts: list[str]):
        """Features of readable texts, [m, words]."""
        return self.vectoriser.transform(texts)


class _Readings:
    """Texts as a language model reads them, around their mean and, like TF-IDF, of length one on average: the ridge would
    take the small differences that such models make between texts for nothing.

    Args:
        known: what the encoder made of the texts of the items of training [n, D]; a row of zeros for one without a text.

    Raises:
        UserError: these tell no two items apart.
    """

    unreadable = "the text of {!r} is empty"

    def __init__(self, dataset: str, encoder: TextEncoder, known: Tensor):
        self.encoder = encoder
        read = known.any(dim=1)
        self.centre = known[read].mean(0)                                         # [D]
        self.length = (known[read] - self.centre).square().sum(1).mean().sqrt()
        if not self.length > 1e-5:  # rounding, or no number at all
            raise UserError(f"the item texts of {dataset!r} hold nothing to learn from: they tell no two items apart")
        self.known = (self._around_centre(known) * read[:, None]).numpy()         # [n, D]

    def readable(self, texts: list[str]) -> np.ndarray:
        """Which of some texts hold something to go by [m]."""
        return self.encoder.tokenise(texts).lengths > 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Features of readable texts, [m, D]."""
        return self._around_centre(self.encoder(texts)).numpy()

    def _around_centre(self, vectors: Tensor) -> Tensor:
        return (vectors - self.centre) / self.length


def _refuse_known(loaded: LoadedRun, known: _Known, items: Iterable[str]) -> None:
    numbers = loaded.data.dataset.field2token_id[loaded.data.dataset.iid_field]
    for item in items:
        row = numbers.get(item, len(known.items))
        if item == PADDING or row < len(known.items) and known.items[row]:
            raise UserError(f"item {item!r} was in training: only others are folded in" if row else f"{item!r} is no item")


def _add(loaded: LoadedRun, known: _Known, items: list[str], vectors: Tensor, exposure: float | None) -> None:
    """Write the vectors [m, d] of some items into the model; what is no item yet becomes one."""
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.iid_field]
    retrieval = loaded.model.retrieval_vectors(vectors, known.vectors.items, known.items)    # [m, d]
    # Nothing below this line can fail over what the user gave.
    added = [item for item in items if item not in numbers]
    numbers.update(zip(added, range(len(numbers), len(numbers) + len(added))))
    dataset.field2id_token[dataset.iid_field] = np.append(dataset.field2id_token[dataset.iid_field], added)
    for texts in dataset.item_texts.values():
        texts.extend([""] * len(added))
    loaded.model.add_items(len(added))
    rows = [numbers[item] for item in items]
    loaded.model.set_items(torch.tensor(rows, dtype=torch.long), vectors, retrieval)
    known.new.update(rows)
    _hold_back(loaded, sorted(known.new), exposure)
    loaded.__dict__.pop("trainer", None)  # a trainer made before would hold the shorter tables


def _hold_back(loaded: LoadedRun, items: list[int], exposure: float | None) -> None:
    """Keep new items from crowding out the others: all of them lose the same score, just enough to leave them their share.

    Where a new item lies is a guess, and guesses lie near to many users: left alone, one item in twenty takes every
    fourth place. Nothing changes where they take no more than their share.

    Args:
        items: numbers of the new items [m].
        exposure: see :func:`fold_in_interactions`.
    """
    model = loaded.model.eval()
    table = model.item_vectors.weight.detach()
    model.retrieval.hold_back(items, 0.0, table)
    if exposure is None or not items:
        return
    margins = _margins(loaded, items).flatten()
    places = round(exposure * PLACES * len(margins) / (len(table) - 1))
    if places < len(margins):
        model.retrieval.hold_back(items, max(0.0, float(margins.topk(places + 1).values[-1])), table)


@torch.no_grad()
def _margins(loaded: LoadedRun, items: list[int]) -> Tensor:
    """By how much the scores of new items exceed the last place that the others leave on the lists of users of training
    [users, m]."""
    model, histories, margins = loaded.model, loaded.data.train_dataset.histories, []
    drawn = np.unique(np.linspace(0, len(histories.users) - 1, USERS).astype(int)).tolist()
    people = [("", histories.users[row], histories.items[slice(*histories.offsets[row:row + 2])]) for row in drawn]
    for start in range(0, len(people), loaded.config["eval_batch_size"]):
        batch = people[start:start + loaded.config["eval_batch_size"]]
        scores = model.full_sort_predict(as_interaction(loaded.config, batch).to(loaded.config["device"]))    # [B, N]
        new = scores[:, items]                                                    # [B, m]
        scores[:, [0, *items]] = -torch.inf
        last = scores.topk(min(PLACES, scores.shape[1] - 1 - len(items)), dim=1).values[:, -1:]    # [B, 1]
        margins.append((new - last).cpu())
    return torch.cat(margins)
