"""
recbole_contrec.retrieval.losses
################################
What trains preference vectors and item vectors to find each other: the cross entropy over the catalogue, and
TokenRec's pairwise cosine loss.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class CatalogueCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of ``query @ items.T``, a few rows at a time.

    The gradient of a softmax is known as soon as its forward pass is, so both are computed in one sweep and in place:
    no [n, N] matrix is kept for the backward pass. Of the gradient, the share of the smoothed target is a product of
    two vectors, and the norm of the softmax belongs to a whole row, so neither needs a pass over the scores: beside the
    three matrix products there are the highest score, the exponential and its sum.

    Called by ``apply(query [n, d], items [N, d], target [n], smoothing, history [n, L], repeat_bias)``; the last two
    may be None. History counts from 1, 0 = none: it names the items to whose scores the scalar ``repeat_bias`` is
    added, once each.
    """

    CHUNK = 256  # rows a sweep: their scores stay in the processor's cache
    ALIGNED = 16  # scores of a row: matrix products write rows of whole cache lines a third faster

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        items: Tensor,
        target: Tensor,
        smoothing: float,
        history: Tensor | None = None,
        repeat_bias: Tensor | None = None,
    ) -> Tensor:
        n, n_items = len(query), len(items)
        candidates = F.pad(items, (0, 0, 0, -n_items % CatalogueCrossEntropy.ALIGNED))  # [N', d]
        query_grad, items_grad = torch.empty_like(query, dtype=torch.float32), torch.zeros_like(candidates)
        repeats = None if history is None or repeat_bias is None else _Repeats(repeat_bias, n_items)
        total = query.new_zeros((), dtype=torch.float32)
        for start in range(0, n, CatalogueCrossEntropy.CHUNK):
            rows = slice(start, start + CatalogueCrossEntropy.CHUNK)
            own = target[rows, None]
            scores = (query[rows] @ candidates.T).float()  # [<= CHUNK, N']
            scores[:, n_items:] = -torch.inf
            if repeats is not None:
                assert history is not None
                repeats.add_to(scores, history[rows], own, smoothing)
            total -= (1 - smoothing) * scores.gather(1, own).sum()
            highest = scores.amax(1, keepdim=True)
            scores.sub_(highest).exp_()
            norm = scores.sum(1, keepdim=True)
            total += (norm.log() + highest).sum()
            if repeats is not None:
                repeats.learn_from(scores, norm)
            weights = scores.to(query.dtype)
            query_grad[rows] = (weights @ candidates) / norm
            items_grad += weights.T @ (query[rows] / norm).to(query.dtype)
        items_grad = items_grad[:n_items]
        query_grad -= (1 - smoothing) * items[target]
        items_grad.index_add_(0, target, query.to(items.dtype), alpha=smoothing - 1)
        if smoothing:
            mean_item, all_queries = items.float().mean(0), query.float().sum(0)  # [d] each
            total -= smoothing * (all_queries @ mean_item)
            query_grad -= smoothing * mean_item
            items_grad -= smoothing / n_items * all_queries
            if repeats is not None:
                total -= smoothing / n_items * repeats.bias * repeats.count
        bias_grad = None if repeats is None else repeats.gradient / n
        ctx.save_for_backward((query_grad / n).to(query.dtype), items_grad / n, bias_grad)
        return total / n

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query_grad, items_grad, bias_grad = ctx.saved_tensors
        return (
            query_grad * upstream,
            items_grad * upstream,
            None,
            None,
            None,
            None if bias_grad is None else bias_grad * upstream,
        )


class _Repeats:
    """The repeat bias in the sweeps of :class:`CatalogueCrossEntropy`: it and its gradient at the places of the history
    alone, which are far fewer than the items.

    Args:
        bias: scalar.
        n_items: N.
    """

    def __init__(self, bias: Tensor, n_items: int):
        self.bias, self.n_items = bias, n_items
        self.gradient = torch.zeros_like(bias)
        self.count = torch.zeros_like(bias)  # of biases that were added
        self._last: Tensor | None = None

    def add_to(self, scores: Tensor, history: Tensor, own: Tensor, smoothing: float) -> None:
        """Add the bias to scores [m, >= N] for histories [m, L] and targets [m, 1]; the gradient takes the share of the
        smoothed targets."""
        self._items = (history - 1).clamp_min_(0)  # [m, L]
        self._counts = self._once(history).to(scores.dtype)
        scores.scatter_add_(1, self._items, self._counts * self.bias)
        count = self._counts.sum()
        self.count += count
        own_repeats = (self._counts * (history == own + 1)).sum()
        self.gradient -= smoothing / self.n_items * count + (1 - smoothing) * own_repeats

    def learn_from(self, weights: Tensor, norm: Tensor) -> None:
        """The share of the softmax in the gradient: its weights [m, >= N], not yet divided by their sum [m, 1]."""
        self.gradient += (self._counts * weights.gather(1, self._items) / norm).sum()

    def _once(self, history: Tensor) -> Tensor:
        """Which places of histories [m, L] name an item that no other marked place of the row names."""
        if self._last is None or len(self._last) < len(history):
            self._last = history.new_empty(len(history), self.n_items + 1, dtype=torch.int32)
        place = torch.arange(history.shape[1], dtype=torch.int32, device=history.device).expand(history.shape)
        # One of the places of an item stays in its column. Nothing else is read, so nothing has to be cleared.
        last = self._last[: len(history)].scatter_(1, history, place)
        return (last.gather(1, history) == place) & (history > 0)


def pairwise_cosine_loss(
    preference: Tensor, items: Tensor, target: Tensor, margin: float = 0.0, sparse: bool = False
) -> Tensor:
    """Draw the next item nearer and push one other item away (TokenRec, https://arxiv.org/abs/2406.10450):
    ``1 - cos(y, q+) + max(0, cos(y, q-) - margin)``.

    Args:
        preference: y, [n, d].
        items: [N, d]; row 0 is the padding and never drawn.
        target: item numbers [n]; q- is drawn uniformly among the others, one a target.
        margin: cosine up to which the other item may stay.
        sparse: whether the gradient of the items is a sparse one.

    Returns:
        Tensor: scalar, the mean over targets.

    Raises:
        ValueError: there is no other item.
    """
    if len(items) < 3:
        raise ValueError("the pairwise loss needs a catalogue of at least two items")
    other = torch.randint(1, len(items) - 1, target.shape, device=target.device)
    other = other + (other >= target)  # 1 .. N - 1 without the target
    near, far = (
        F.cosine_similarity(preference, F.embedding(numbers, items, sparse=True) if sparse else items[numbers], dim=-1)
        for numbers in (target, other)
    )
    return (1 - near + (far - margin).clamp_min(0)).mean()
