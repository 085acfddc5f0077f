"""
benchmarks.peer.ranking
#######################
From scores of the whole catalogue to the places of the targets, by the rules of our evaluator.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.peer.exchange import Ranked


def rank_targets(
    batches: Iterable[Tensor], targets: np.ndarray, top: int, seen: Sequence[np.ndarray] | None = None
) -> Ranked:
    """Rank the catalogue for all users.

    Args:
        batches: scores of users in their order, each [b, 1 + N]; column 0 is no item. Items that the model does not
            know have -inf.
        targets: items [U]; users without one have 0, and a rank that means nothing.
        top: items to keep of every ranking (K).
        seen: what every user has seen, U arrays, to be left out; a target that was seen before stays.

    Raises:
        ValueError: a score is NaN, or scores and targets differ in number.
    """
    found: list[Ranked] = []
    done = 0
    for scores in batches:
        rows = slice(done, done + len(scores))
        done += len(scores)
        if scores.isnan().any():
            raise ValueError("scores are NaN: the model has diverged")
        own = torch.from_numpy(np.asarray(targets[rows], dtype=np.int64))
        scores = scores.clone() if seen is None else without_seen(scores, own, seen[rows])
        scores[:, 0] = -torch.inf
        found.append(_rank(scores, own, top))
    if done != len(targets):
        raise ValueError(f"scores of {done} users, and {len(targets)} targets")
    return Ranked(*map(np.concatenate, zip(*found)))


def without_seen(scores: Tensor, targets: Tensor, seen: Sequence[np.ndarray]) -> Tensor:
    """Scores [b, 1 + N] with -inf for what the users have seen but for their targets [b]."""
    own = scores.gather(1, targets[:, None])
    rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    masked = scores.clone()
    masked[torch.from_numpy(rows), torch.from_numpy(np.concatenate(seen).astype(np.int64))] = -torch.inf
    return masked.scatter_(1, targets[:, None], own)


def ndcg_at_10(ranked: Ranked, targets: np.ndarray) -> float:
    """Mean NDCG@10 over the users that have a target, [U] of which may be 0."""
    gains = (ranked.top[:, :10] == targets[:, None]) / np.log2(np.arange(2, 12))  # [U, 10]
    return float(gains.sum(1)[targets > 0].mean())


def _rank(scores: Tensor, targets: Tensor, top: int) -> Ranked:
    own = scores.gather(1, targets[:, None])  # [b, 1]
    items = scores[:, 1:]
    better, equal = (items > own).sum(1), (items == own).sum(1)
    return Ranked(1 + better.numpy(), equal.numpy() - 1, scores.topk(top).indices.numpy())
