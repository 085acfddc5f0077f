"""
recbole_contrec.fold_in
#######################
Items that were not in training: from their first interactions or from their texts they get vectors and tokens, while
tokenizer and language model stay as they are. (New *users* need no call: models fold their histories in by themselves.)
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Tensor

from recbole_contrec.data.text import joined, tfidf
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.interface import FoldsItemsIn
from recbole_contrec.item_vectors.text_encoder import TextEncoder, text_encoder_of
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.people import PADDING, Person, as_interaction, seen_items
from recbole_contrec.storage.stages import run_stages
from recbole_contrec.tokenizer import CollaborativeVectors, ItemFoldIn
from recbole_contrec.training.identity import Identity

PLACES = 10  # of a list, over which the exposure of new items is counted
USERS = 1024  # of training, whose lists are looked at for that
BATCH = 256  # of them at once


def fold_in_interactions(loaded: LoadedRun, users_of: Mapping[str, Sequence[str]], early: bool = True) -> None:
    """Give items vectors and tokens from the users who interacted with them since.

    Args:
        loaded: what ``load_data_and_model`` gave; its model and catalogue are changed in memory, no file is. Histories
            stay what they are: the new item does not become part of those of its users.
        users_of: for every item its users; those without a training interaction add nothing. Items that the data set
            does not know are added to the catalogue.
        early: whether more users are to come. Then an item is placed where those items of training lie that look like
            it when only as many of their users are known (:class:`~recbole_contrec.tokenizer.ItemFoldIn`), otherwise
            among the items that never get more.

    Raises:
        UserError: a user that the data set does not know, an item none of whose users has a vector from training or
            that was in training itself, or a model that cannot take new items.
    """
    known = _known(loaded)
    users_of = {str(item): users if isinstance(users, str) else list(users) for item, users in users_of.items()}
    _refuse_known(loaded, known, users_of)
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.uid_field]
    partners = []
    for item, users in users_of.items():
        if isinstance(users, str):
            raise UserError(f"item {item!r}: {users!r} is one text; give a list of users")
        for user in map(str, users):
            if user not in numbers or user == PADDING:
                raise UserError(
                    f"there is no user {user!r} in {loaded.config['dataset']!r}{did_you_mean(user, numbers)}"
                )
        partners.append(torch.tensor([numbers[str(user)] for user in users], dtype=torch.long))
    pairs: tuple[np.ndarray, np.ndarray] = dataset.histories.pairs()
    vectors = ItemFoldIn(known.vectors, *pairs, loaded.config["seed"])(partners, early)  # [m, d]
    for item, vector in zip(users_of, vectors):
        if not vector.any():
            raise UserError(f"item {item!r} cannot be folded in: none of its users has a vector from training")
    _add(loaded, known, list(users_of), vectors)


def fold_in_texts(loaded: LoadedRun, texts: Mapping[str, str] | None = None) -> list[str]:
    """Give items vectors and tokens from their texts: ridge regression from TF-IDF, or from what ``text_encoder`` makes
    of the texts, to collaborative vectors, learned on the items of training.

    Args:
        loaded: what ``load_data_and_model`` gave; its model and catalogue are changed in memory, no file is.
        texts: for every item its text, which is read for this alone: prompts and answers do not know it. None takes the
            items of the data set that were not in training and have a text that can be read: one with a word that items
            of training have, or any at all for a ``text_encoder``.

    Returns:
        list: the items.

    Raises:
        UserError: the data set has no texts, a text cannot be read, an item was in training, or a model that cannot
            take new items.
    """
    known = _known(loaded)
    dataset = loaded.data.dataset
    if not dataset.item_texts:
        raise UserError(f"{loaded.config['dataset']!r} has no item texts (a .item file with text columns)")
    all_texts = joined(dataset.item_texts)  # [N]
    given = (
        {str(item): text for item, text in texts.items()}
        if texts is not None
        else {
            str(name): text
            for row, (name, text) in enumerate(zip(dataset.field2id_token[dataset.iid_field], all_texts))
            if row and not (row < len(known.items) and known.items[row])
        }
    )
    _refuse_known(loaded, known, given)
    for item, text in given.items():
        if not isinstance(text, (str, type(None))):
            raise UserError(f"the text of {item!r} is no text but {text!r}")
    rows = known.items.nonzero().squeeze(1).tolist()
    reader = _reader(loaded, known, rows, [all_texts[row] for row in rows])
    readable = reader.readable([text or "" for text in given.values()]) if given else np.zeros(0, dtype=bool)  # [m]
    if texts is not None and not readable.all():
        raise UserError(reader.unreadable.format(list(given)[readable.argmin()]))
    given = {item: text for (item, text), can in zip(given.items(), readable) if can}
    if given:
        regression = Ridge(alpha=1.0).fit(reader.known, known.vectors.items[rows].numpy())
        read = reader(list(given.values()))
        vectors = regression.predict(read)
        _add(loaded, known, list(given), torch.from_numpy(vectors.astype(np.float32)))
        _compare_texts(loaded, known, given, all_texts, read, reader.known)
    return list(given)


@torch.no_grad()
def _compare_texts(
    loaded: LoadedRun, known: "_Known", new: Mapping[str, str], texts: list[str], read: Any, features: Any
) -> None:
    """Let ``text_similarity`` count for new items with a text as for the others.

    Where the texts of the data set lie, training has left behind. A text that is not among these lies where the texts
    of the items of training tell, which is linear in their features, but for its length.

    Args:
        new: texts of the new items [m], and ``read``: their features [m, F].
        texts: of the data set, by internal number.
        features: of the items of training [n, F].
    """
    vectors, compared = loaded.model.text_vectors, known.compared
    if vectors is None or compared is None:
        return
    of_training = compared[: len(known.items)][known.items].numpy()  # [n, w]
    with_text = np.flatnonzero(of_training.any(1))
    if not len(with_text):
        return
    found = Ridge(alpha=1e-3).fit(features[with_text], of_training[with_text]).predict(read)  # [m, w]
    found = F.normalize(torch.from_numpy(found).to(vectors), dim=1)
    numbers = loaded.data.dataset.field2token_id[loaded.data.dataset.iid_field]
    for (item, text), vector in zip(new.items(), found):
        row = numbers[item]
        left = row < len(compared) and text == texts[row] and compared[row].any()
        vectors[row] = compared[row].to(vectors) if left else vector
    _hold_back(loaded)


class _Known(NamedTuple):
    """What training knew: vectors of users [U, d] and items [N, d], which items [N] had an interaction, the
    ``text_encoder`` with what it made of the item texts [N, D], where there is one, and what the texts of items are
    compared by [N, w], where they are."""

    vectors: CollaborativeVectors
    items: Tensor
    encoder: TextEncoder | None
    texts: Tensor | None
    compared: Tensor | None


def _known(loaded: LoadedRun) -> _Known:
    """Of a run, before anything was folded in: later calls go on from the same vectors.

    Raises:
        UserError: a model that cannot take new items, or files or texts behind its vectors that are gone or were
            changed.
    """
    if loaded.known is not None:
        return loaded.known
    if not isinstance(loaded.model, FoldsItemsIn):
        raise UserError(f"{loaded.config['model']} cannot fold in items that were not in training")
    dataset = loaded.data.train_dataset
    vectors: dict[str, Tensor] = {}
    stages = loaded.model.vector_stages(dataset, vectors)  # on disk, if the run left them there
    data = Identity.of(loaded.data.dataset).with_histories(dataset.histories)
    fold_in = loaded.model.user_fold_in
    trained = copy.deepcopy(fold_in)
    run_stages(stages, data, Path(loaded.config["checkpoint_dir"]) / "stages")
    same = loaded.model.reads_items_as(vectors["items"])
    if fold_in is not None and not (same and torch.allclose(trained.features, fold_in.features, atol=1e-3)):
        fold_in.load_state_dict(trained.state_dict())
        same = False
    if not same:
        raise UserError(
            f"{loaded.config['model']} was trained with other vectors than item_vectors="
            f"{loaded.config['item_vectors']} gives now: bring back the files or texts of that time"
            + (f", or the weights of text_encoder={loaded.config['text_encoder']}" if "texts" in vectors else "")
        )
    items = torch.zeros(len(vectors["items"]), dtype=torch.bool)
    items[dataset.histories.items] = True
    encoder = text_encoder_of(loaded.config) if "texts" in vectors else None
    compared = loaded.model.text_vectors
    loaded.known = _Known(
        CollaborativeVectors(vectors["users"], vectors["items"]),
        items,
        encoder,
        vectors.get("texts"),
        None if compared is None else compared.cpu().clone(),
    )
    return loaded.known


def _reader(loaded: LoadedRun, known: _Known, rows: list[int], texts: list[str]) -> "_Words | _Readings":
    """What turns texts into features of the regression, made for the items of training: ``rows`` [n], ``texts`` [n]."""
    if known.encoder is None or known.texts is None:
        return _Words(loaded.config["dataset"], texts)
    assert known.texts is not None  # they come with the encoder
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
            self.known = self.vectoriser.fit_transform(texts)  # [n, words]
        except ValueError as error:
            raise UserError(f"the item texts of {dataset!r} hold no words to learn from") from error

    def readable(self, texts: list[str]) -> np.ndarray:
        """Which of some texts hold something to go by [m]."""
        return self.vectoriser.transform(texts).getnnz(axis=1) > 0

    def __call__(self, texts: list[str]) -> Any:
        """Features of readable texts, [m, words]."""
        return self.vectoriser.transform(texts)


class _Readings:
    """Texts as a language model reads them, around their mean and, like TF-IDF, of length one on average: the ridge
    would take the small differences that such models make between texts for nothing.

    Args:
        known: what the encoder made of the texts of the items of training [n, D]; a row of zeros for one without a
            text.

    Raises:
        UserError: these tell no two items apart.
    """

    unreadable = "the text of {!r} is empty"

    def __init__(self, dataset: str, encoder: TextEncoder, known: Tensor):
        self.encoder = encoder
        read = known.any(dim=1)
        self.centre = known[read].mean(0)  # [D]
        self.length = (known[read] - self.centre).square().sum(1).mean().sqrt()
        if not self.length > 1e-5:  # rounding, or no number at all
            raise UserError(f"the item texts of {dataset!r} hold nothing to learn from: they tell no two items apart")
        self.known = (self._around_centre(known) * read[:, None]).numpy()  # [n, D]

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
            raise UserError(
                f"item {item!r} was in training: only others are folded in" if row else f"{item!r} is no item"
            )


def _add(loaded: LoadedRun, known: _Known, items: list[str], vectors: Tensor) -> None:
    """Write the vectors [m, d] of some items into the model; what is no item yet becomes one."""
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.iid_field]
    retrieval = loaded.model.retrieval_vectors(vectors, known.vectors.items, known.items)  # [m, d]
    # Nothing below this line can fail over what the user gave.
    added = [item for item in items if item not in numbers]
    numbers.update(zip(added, range(len(numbers), len(numbers) + len(added))))
    dataset.field2id_token[dataset.iid_field] = np.append(dataset.field2id_token[dataset.iid_field], added)
    for texts in dataset.item_texts.values():
        texts.extend([""] * len(added))
    loaded.model.add_items(len(added))
    rows = [numbers[item] for item in items]
    loaded.model.set_items(torch.tensor(rows, dtype=torch.long), vectors, retrieval)
    loaded.new_items.update(rows)
    loaded.forget_trainer()  # it would hold the shorter tables
    _hold_back(loaded)


def _hold_back(loaded: LoadedRun) -> None:
    """Keep new items from crowding out the others, by ``new_item_exposure``: all of them lose the same, just enough.

    The vectors of new items are predictions, which come close to the preferences of many users: on ml-100k, where one
    item in twenty is new, new items take a quarter of the first ten places. Nothing changes where they take no more
    than they may.
    """
    loaded.model.eval()
    model, items, exposure = loaded.model, sorted(loaded.new_items), loaded.config["new_item_exposure"]
    model.hold_back(None)
    if exposure is None or not items:
        return
    people = people_of_training(loaded)
    margins = _margins(loaded, people, torch.tensor(items, device=model.device))
    places = exposure * PLACES * len(people) * len(items) / (model.n_items - 1)
    places = max(1, round(places)) if exposure else 0  # a sample cannot tell less than one place from none
    if places < len(margins):
        penalty = margins.new_zeros(model.n_items)
        penalty[items] = margins.topk(places + 1).values[-1]
        model.hold_back(penalty)


def people_of_training(loaded: LoadedRun) -> list[Person]:
    """Some users of training with their training history, evenly spread over all of them."""
    histories = loaded.data.train_dataset.histories
    drawn = np.unique(np.linspace(0, len(histories.users) - 1, USERS).astype(int)).tolist()
    return [
        Person("", histories.users[row], histories.items[slice(*histories.offsets[row : row + 2])]) for row in drawn
    ]


@torch.no_grad()
def _margins(loaded: LoadedRun, people: list[Person], new: Tensor) -> Tensor:
    """What the scores of new items [m] must lose to leave the first ten places, for each of those that they hold on
    the lists of some people, which are without the items that these have had.

    The j-th best new item holds a place as long as it is above the (11 - j)-th best of the others: with it, j new items
    and 10 - j others stand above the next.
    """
    margins = []
    for start in range(0, len(people), BATCH):
        batch = people[start : start + BATCH]
        interaction, seen = as_interaction(loaded.config, batch), seen_items(batch)
        interaction, seen = interaction.to(new.device), seen.to(new.device)
        encoding = loaded.model.encode_histories(interaction)
        best, items = loaded.model.top_k(interaction, PLACES, seen, encoding)  # [B, 10] each
        others, _ = loaded.model.top_k(
            interaction, PLACES, torch.cat([seen, new.expand(len(batch), -1)], dim=1), encoding
        )
        is_new = torch.isin(items, new)
        place = is_new.cumsum(1).clamp_min(1)  # among the new items, where it is one
        margin = best - others.gather(1, PLACES - place)
        margins.append(margin[is_new & margin.isfinite()])  # no margin where there are not ten others
    return torch.cat(margins)
