"""
benchmarks.lib.lists
####################
What the test of a run recommends, beyond its accuracy: to which users and items its targets belong, how varied and how
popular the first ten items of its rankings are, and the lists of a few users to look at.

Popularity is the number of training interactions of an item. Training interactions are those of users with a training
target that are neither validation nor test targets: a user whose history begins after the moment of a split in time has
none, though the first item of it is nobody's target.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks.lib.runs import TARGETS
from recbole_contrec.tokenizer.collaborative import svd_vectors

K = 10
TAIL = 0.1  # share of the items, RecBole's default for TailPercentage
WIDTH = 64  # of the vectors that diversity is measured with
VECTORS = f"SVD of the training interactions, {WIDTH} dimensions"
AT_ONCE = 4096  # lists whose vectors are looked at together
EXAMPLES, EXAMPLE_SEED, EXAMPLE_HISTORY = 12, 0, 12
COLUMNS = ("item", "history", "popularity", "above", "seen")


class Training(NamedTuple):
    """What the groups of a test are made by, by internal numbers; entry 0 is the padding.

    Attributes:
        pairs: how often each user has had each item in training, [U, N] sparse.
        before_test: the same of all that is no test target.
    """

    pairs: sp.csr_matrix
    before_test: sp.csr_matrix

    @classmethod
    def of(cls, data: Any) -> "Training":
        """Of a run.

        Args:
            data: :class:`~recbole_contrec.data.loading.RunData`.
        """
        dataset = data.dataset
        shape = dataset.user_num, dataset.item_num
        every = dataset.all_interactions
        whole = _matrix(every.users, every.items, shape)
        valid, test = (_matrix(*_targets(part, dataset), shape) for part in (data.valid, data.test))
        trained = np.zeros(dataset.user_num, dtype=np.int32)
        trained[data.train_dataset.inter_feat[dataset.uid_field].numpy()] = 1
        return cls(_positive((whole - valid - test).multiply(trained[:, None]).tocsr()), _positive(whole - test))

    @property
    def popularity(self) -> np.ndarray:
        """Of every item [N]."""
        return np.asarray(self.pairs.sum(axis=0)).ravel().astype(np.int64)

    @property
    def histories(self) -> np.ndarray:
        """Length of every user's training history [U]."""
        return np.asarray(self.pairs.sum(axis=1)).ravel().astype(np.int64)

    @property
    def vectors(self) -> np.ndarray:
        """Of every item [N, WIDTH], of length 1, or 0 where it is not in training."""
        users, items = self.pairs.nonzero()
        found = svd_vectors(users, items, *self.pairs.shape, WIDTH).items.numpy()
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)


def targets(data: Any, training: Training, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
    """What groups of targets are made by, columns [n].

    Args:
        users, items: names of the test targets [n].

    Returns:
        dict: ``item``; ``history``, the length of the user's training history; ``popularity`` of the target; ``above``,
        the share of training interactions that more popular items have; ``seen``, whether the user has had the target
        before, which an earlier test target may tell.
    """
    dataset = data.dataset
    user_numbers, item_numbers = (
        np.array([dataset.field2token_id[field][name] for name in names], dtype=np.int64)
        for field, names in ((dataset.uid_field, users.tolist()), (dataset.iid_field, items.tolist()))
    )
    popularity = training.popularity
    _, first = np.unique(user_numbers * dataset.item_num + item_numbers, return_index=True)
    again = np.ones(len(items), dtype=bool)
    again[first] = False
    return {
        "item": items,
        "history": training.histories[user_numbers].astype(np.int32),
        "popularity": popularity[item_numbers].astype(np.int32),
        "above": _share_above(popularity)[item_numbers].astype(np.float32),
        "seen": (np.asarray(training.before_test[user_numbers, item_numbers]).ravel() > 0) | again,
    }


def test_targets(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Names of users and items of all test targets."""
    dataset = data.dataset
    users, items = _targets(data.test, dataset)
    return (
        np.asarray(dataset.id2token(dataset.uid_field, users), dtype=str),
        np.asarray(dataset.id2token(dataset.iid_field, items), dtype=str),
    )


def beyond_accuracy(top: np.ndarray, training: Training) -> dict[str, float]:
    """Metrics of lists, at :data:`K`.

    Args:
        top: item numbers [n, K]; 0 where a model has ranked no further item.

    Returns:
        dict: ``itemcoverage``, ``giniindex``, ``averagepopularity`` and ``tailpercentage`` as RecBole has them;
        ``novelty``, the mean self-information -log2 p of the items, where p is an item's share of the training
        interactions, and one that is not there counts as if it were there once (Zhou et al., PNAS 2010);
        ``diversity``, 1 minus the mean cosine of two items of a list (Ziegler et al., WWW 2005).
    """
    popularity, there = training.popularity, top > 0
    n_items = len(popularity) - 1
    counts = np.sort(np.bincount(top[there], minlength=n_items + 1)[1:])  # [N - 1]
    places = np.arange(1, n_items + 1)
    information = -np.log2(popularity.clip(min=1) / max(popularity.sum(), 1))
    return {
        "itemcoverage": float((counts > 0).mean()),
        "giniindex": float(((2 * places - n_items - 1) * counts).sum() / (n_items * max(counts.sum(), 1))),
        "averagepopularity": _mean_of_lists(popularity[top], there),
        "tailpercentage": _mean_of_lists(_tail(popularity)[top], there),
        "novelty": _mean_of_lists(information[top], there),
        "diversity": _diversity(top, training.vectors),
    }


def examples(data: Any, users: np.ndarray, items: np.ndarray, top: np.ndarray) -> dict[str, Any]:
    """The lists of a few users, the same for every model on the same data.

    Args:
        users, items: names of the test targets [n].
        top: item numbers [n, K].

    Returns:
        dict: ``users``, for each its name, the end of its history, its target and its list, as item names; and
        ``titles`` of all these items, where the data have some.
    """
    dataset = data.dataset
    names = dataset.field2id_token[dataset.iid_field]
    histories = dataset.all_interactions.by_user()
    rows = {name: row for row, name in reversed([*enumerate(users.tolist())])}  # the first target of each
    count = Counter(users.tolist())
    everybody = sorted(rows)
    chosen = np.random.default_rng(EXAMPLE_SEED).permutation(len(everybody))[:EXAMPLES]
    found = []
    for name in (everybody[place] for place in chosen):
        row = rows[name]
        history = [str(names[item]) for item in histories[dataset.field2token_id[dataset.uid_field][name]]]
        target = str(items[row])
        held_out = len(history) - count[name]
        if target in history[held_out:]:
            before = history[: history.index(target, held_out)]
        else:  # not split in order of time
            before = history[: len(history) - history[::-1].index(target) - 1]
        found.append(
            {
                "user": name,
                "history": before[-EXAMPLE_HISTORY:],
                "target": target,
                "top": [str(names[item]) for item in top[row] if item],
            }
        )
    titles = _titles(data)
    shown = {item for user in found for item in (*user["history"], user["target"], *user["top"])}
    return {"users": found, "titles": {item: titles[item] for item in sorted(shown) if titles.get(item)}}


def add_answers(found: list[dict[str, Any]], loaded: Any) -> None:
    """Add to each of the users of :func:`examples` as ``answer`` what the model says comes next, where it has learned
    to say something.

    Args:
        loaded: :class:`~recbole_contrec.loaded_run.LoadedRun`.
    """
    from benchmarks.lib.generated_answers import collect
    from recbole_contrec.interface import AnswersInWords

    if not found or not isinstance(loaded.model, AnswersInWords) or not loaded.model.can_answer:
        return
    part, dataset = loaded.data.test, loaded.data.dataset
    users, items = test_targets(loaded.data)
    rows = [int(np.flatnonzero((users == each["user"]) & (items == each["target"]))[0]) for each in found]
    chosen = part.dataset.copy(part.dataset.inter_feat[rows])
    said = collect(loaded, type(part)(loaded.config, chosen, part._sampler, shuffle=False))
    names = dataset.id2token(dataset.uid_field, said.users), dataset.id2token(dataset.iid_field, said.targets)
    answer_of = dict(zip(zip(*(map(str, each) for each in names)), said.answers))
    for each in found:
        each["answer"] = answer_of[each["user"], each["target"]]


def describe(result: dict[str, Any], ranks: Path, loaded: Any) -> None:
    """Add to a result what its test recommends, and write the columns of its targets beside its ranks.

    Args:
        result: of a run; gets ``test_lists`` and the source of vectors in its card.
        ranks: its ``test_ranks.npz``.
        loaded: the run, :class:`~recbole_contrec.loaded_run.LoadedRun`.
    """
    data = loaded.data
    with np.load(ranks) as stored:
        users, items, top = (stored[name] for name in ("user", "item", "top"))
    training = Training.of(data)
    np.savez(ranks.with_name(TARGETS), **targets(data, training, users, items))
    shown = examples(data, users, items, top)
    add_answers(shown["users"], loaded)
    result["card"]["diversity_vectors"] = VECTORS
    result["test_lists"] = {
        "at": K,
        "beyond": beyond_accuracy(top, training),
        "examples": shown,
    }


def _targets(part: Any, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = part.dataset.inter_feat
    return rows[dataset.uid_field].numpy(), rows[dataset.iid_field].numpy()


def _matrix(users: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(users), dtype=np.int32), (users, items)), shape=shape)


def _positive(matrix: sp.csr_matrix) -> sp.csr_matrix:
    matrix.data = matrix.data.clip(min=0)
    matrix.eliminate_zeros()
    return matrix


def _share_above(popularity: np.ndarray) -> np.ndarray:
    """For every item the share of interactions that items of greater popularity have [N]."""
    values, place, number = np.unique(popularity, return_inverse=True, return_counts=True)
    total = values * number
    above = total.sum() - total.cumsum()  # of greater values
    return above[place] / max(total.sum(), 1)


def _tail(popularity: np.ndarray) -> np.ndarray:
    """Which items RecBole counts as tail [N]: the least popular ones of those in training, equal ones by number."""
    known = np.flatnonzero(popularity)
    order = known[np.argsort(popularity[known], kind="stable")]
    tail = np.zeros(len(popularity), dtype=bool)
    tail[order[: max(int(len(known) * TAIL), 1)]] = True
    return tail


def _mean_of_lists(values: np.ndarray, there: np.ndarray) -> float:
    """Mean over lists of the mean of their items [n, K]; lists without any are left out."""
    count = there.sum(axis=1)
    sums = (values * there).sum(axis=1)
    return float((sums[count > 0] / count[count > 0]).mean()) if count.any() else 0.0


def _diversity(top: np.ndarray, vectors: np.ndarray) -> float:
    found = []
    for start in range(0, len(top), AT_ONCE):
        part = top[start : start + AT_ONCE]
        own = vectors[part] * (part > 0)[:, :, None]  # [n, K, WIDTH]
        count = (part > 0).sum(axis=1)
        pairs = np.square(own.sum(axis=1)).sum(axis=1) - np.square(own).sum(axis=(1, 2))
        some = count > 1
        found.append(1 - pairs[some] / (count[some] * (count[some] - 1)))
    together = np.concatenate(found) if found else np.zeros(0)
    return float(together.mean()) if len(together) else 0.0


def _titles(data: Any) -> dict[str, str]:
    from recbole_contrec.data.text import part_field
    from recbole_contrec.errors import UserError

    dataset = data.dataset
    texts = dataset.item_texts
    try:
        field = part_field("title", texts, None)
    except UserError:
        return {}
    return dict(zip(map(str, dataset.field2id_token[dataset.iid_field]), texts[field]))
