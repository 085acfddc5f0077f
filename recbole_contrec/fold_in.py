"""
recbole_contrec.fold_in
#######################
Items that were not in training: from their first interactions or from their texts they get vectors and tokens, while
tokenizer and language model stay as they are. (New *users* need no call: models fold their histories in by themselves.)
"""

from typing import Mapping, NamedTuple, Sequence

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from recbole_contrec.data.text import joined, tfidf
from recbole_contrec.data.vectors import user_and_item_vectors
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.quick_start import LoadedRun
from recbole_contrec.tokenizer import CollaborativeVectors, FoldIn


def fold_in_interactions(loaded: LoadedRun, users_of: Mapping[str, Sequence[str]]) -> None:
    """Give items vectors and tokens from the users who interacted with them since.

    Args:
        loaded: what ``load_data_and_model`` gave; its model and catalogue are changed in memory, no file is.
        users_of: for every item its users. Items that the data set does not know are added to the catalogue.

    Raises:
        UserError: a user that the data set does not know or that had no training interaction, an item that was in
            training, or a model without tokens.
    """
    known = _Known.of(loaded)
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.uid_field]
    partners = torch.zeros(len(users_of), max(map(len, users_of.values()), default=0), dtype=torch.long)
    for row, users in enumerate(users_of.values()):
        for place, user in enumerate(map(str, users)):
            if user not in numbers:
                raise UserError(f"there is no user {user!r} in {loaded.config['dataset']!r}{did_you_mean(user, numbers)}")
            partners[row, place] = numbers[user]
    fold_in = FoldIn(dataset.user_num, known.vectors.items.shape[1])
    users, items = known.pairs
    fold_in.fit(known.vectors.items, known.vectors.users, items, users)
    vectors = fold_in(partners)                                                   # [m, d]
    if (missing := ~vectors.any(1)).any():
        item = list(users_of)[int(missing.nonzero()[0])]
        raise UserError(f"item {item!r} cannot be folded in: none of its users had a training interaction")
    _add(loaded, known, list(users_of), vectors)


def fold_in_texts(loaded: LoadedRun, texts: Mapping[str, str] | None = None) -> list[str]:
    """Give items vectors and tokens from their texts: ridge regression from TF-IDF to collaborative vectors, learned
    on the items of training.

    Args:
        loaded: what ``load_data_and_model`` gave; its model and catalogue are changed in memory, no file is.
        texts: for every item its text. None takes the items of the data set that were not in training and have one.

    Returns:
        list: the items.

    Raises:
        UserError: the data set has no texts, an item was in training, or a model without tokens.
    """
    known = _Known.of(loaded)
    dataset = loaded.data.dataset
    if not dataset.item_texts:
        raise UserError(f"{loaded.config['dataset']!r} has no item texts (a .item file with a token_seq column)")
    all_texts = joined(dataset.item_texts)                                        # [N]
    if texts is None:
        names = dataset.field2id_token[dataset.iid_field]
        texts = {str(names[row]): all_texts[row] for row in range(1, len(all_texts))
                 if not known.items[row] and all_texts[row].strip()}
    if not texts:
        return []
    rows = known.items.nonzero().squeeze(1).tolist()
    vectoriser = tfidf()
    inputs = vectoriser.fit_transform([all_texts[row] for row in rows])
    regression = Ridge(alpha=1.0).fit(inputs, known.vectors.items[rows].numpy())
    vectors = torch.from_numpy(regression.predict(vectoriser.transform(list(texts.values()))).astype(np.float32))
    _add(loaded, known, list(texts), vectors)
    return list(texts)


class _Known(NamedTuple):
    """What training knew: pairs [n], vectors, and which items [N] had one."""

    pairs: tuple[np.ndarray, np.ndarray]
    vectors: CollaborativeVectors
    items: Tensor

    @classmethod
    def of(cls, loaded: LoadedRun) -> "_Known":
        if not getattr(loaded.model, "folds_items_in", False):
            raise UserError(f"{loaded.config['model']} cannot fold in items that were not in training")
        dataset = loaded.data.train.dataset
        vectors = user_and_item_vectors(loaded.config, dataset, lambda *_: None)
        items = torch.zeros(len(vectors.items), dtype=torch.bool)
        items[dataset.histories.items] = True
        return cls(dataset.histories.pairs(), vectors, items)


def _add(loaded: LoadedRun, known: _Known, items: list[str], vectors: Tensor) -> None:
    """Write the vectors [m, d] of some items into the model; what is no item yet becomes one."""
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.iid_field]
    for item in items:
        if item in numbers and numbers[item] < len(known.items) and known.items[numbers[item]]:
            raise UserError(f"item {item!r} was in training: only others are folded in")
    added = [item for item in items if item not in numbers]
    first = len(numbers)
    numbers.update(zip(added, range(first, first + len(added))))
    dataset.field2id_token[dataset.iid_field] = np.append(dataset.field2id_token[dataset.iid_field], added)
    for texts in dataset.item_texts.values():
        texts.extend([""] * len(added))
    loaded.model.add_items(len(added))
    loaded.model.fold_in_items(torch.tensor([numbers[item] for item in items]), vectors, known.vectors.items, known.items)
