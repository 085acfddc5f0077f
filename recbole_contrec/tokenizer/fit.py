"""Training of a tokenizer on a table of vectors: a plain loop, seconds on a CPU.

Axes: ``n`` rows of the table, ``d`` width of a vector.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .collaborative import seen_rows
from .sigma_vae import TokenizerLoss

DEFAULT_STEPS = 1500
EVALUATION_ROWS = 8192


class Tokenizer(Protocol):
    """What a module needs to be fitted here."""

    def __call__(self, x: Tensor) -> NamedTuple:
        """[n, d] -> anything with a ``reconstruction`` [n, d]."""

    def loss(self, x: Tensor, **weights: float) -> TokenizerLoss | tuple:
        """Weighted scalar terms, the first one ``reconstruction``."""


@runtime_checkable
class HasCodebooks(Protocol):
    """A tokenizer whose codebooks start at data."""

    def start_codebooks(self, x: Tensor) -> None:
        """Called once with the rows to train on [n, d]."""


class Split(NamedTuple):
    """Row numbers of the table, [rows] int64 each, disjoint."""

    train: Tensor
    held_out: Tensor


class FitReport(NamedTuple):
    """Errors are mean squared errors in eval mode, of the weights of ``best_epoch`` (counted from 1)."""

    epochs_run: int
    best_epoch: int
    train_error: float
    held_out_error: float
    seconds: float


def split_rows(vectors: Tensor, held_out: float, seed: int) -> Split:
    """The split that ``fit_tokenizer`` makes of the rows that carry a vector (no padding, no rows of zeros)."""
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is the share of rows kept for early stopping: between 0 and 1, not {held_out}")
    rows = seen_rows(vectors).nonzero().squeeze(1).cpu()
    if len(rows) < 2:
        raise ValueError(f"the tokenizer needs at least two rows with a vector, and the table has {len(rows)}")
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    n_held_out = min(max(1, round(held_out * len(rows))), len(rows) - 1)
    return Split(train=rows[n_held_out:], held_out=rows[:n_held_out])


def fit_tokenizer(
    model: nn.Module,
    vectors: Tensor,
    *,
    epochs: int | None = None,
    batch_size: int = 512,
    learning_rate: float = 5e-3,
    weight_decay: float = 1e-3,
    held_out: float = 0.1,
    patience: int = 20,
    seed: int = 0,
    on_epoch: Callable[[int, int, float, float], None] | None = None,
    **weights: float,
) -> FitReport:
    """Train ``model`` and leave it in eval mode with the weights of the best epoch.

    AdamW, its rate falling to zero along a cosine over ``epochs``: on ml-1m's items 60 epochs so reach the
    held-out error (.082) for which a constant 1e-3 takes 100. The best epoch is the one of least reconstruction
    error on held-out rows, without mask and noise; after ``patience`` epochs without a new best one, training
    stops. Equal seeds (and equal initial weights) give equal results, and the global random state is left
    as it was.

    Args:
        model: a :class:`Tokenizer`; the table is moved to its device.
        vectors: [n, d] float32; row 0 and rows of zeros are left out.
        epochs: None takes what about 1,500 steps need, between 20 and 200: a small table needs many epochs, and a
            large one sees enough batches in a few.
        held_out: share of rows kept for early stopping, at least one row.
        on_epoch: called as ``on_epoch(epoch, epochs, train_loss, held_out_error)`` after every epoch.
        weights: of the terms of ``model.loss``, by its names (``mean_weight=0.01``).

    Raises:
        FloatingPointError: a term of the loss, or the held-out error, is NaN or infinite.
        ValueError: fewer than two rows with a vector, or a setting out of range.
    """
    if (epochs is not None and epochs < 1) or batch_size < 1 or patience < 1:
        raise ValueError("epochs, batch_size and patience must be at least 1")
    started = time.perf_counter()
    device = next(model.parameters()).device
    rows = split_rows(vectors, held_out, seed)
    train, unseen = (vectors[part.to(vectors.device)].to(device) for part in rows)  # [rows, d]
    if epochs is None:
        epochs = min(max(20, math.ceil(DEFAULT_STEPS / math.ceil(len(train) / batch_size))), 200)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best_error, best_epoch = math.inf, 0
    best_weights: dict[str, Any] = {}

    # Noise, mask and dropout read the global generators, so these are borrowed and put back.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        if isinstance(model, HasCodebooks):
            model.start_codebooks(train)
        for epoch in range(1, epochs + 1):
            terms = _train_epoch(model, optimizer, train, batch_size, order, weights)
            decay.step()
            error = reconstruction_error(model, unseen)
            _check_finite(terms, error, epoch)
            if error < best_error:
                best_error, best_epoch = error, epoch
                best_weights = copy.deepcopy(model.state_dict())
            if on_epoch is not None:
                on_epoch(epoch, epochs, sum(terms), error)
            if epoch - best_epoch >= patience:
                break

    model.load_state_dict(best_weights)
    train_error = reconstruction_error(model, train)
    model.eval()
    return FitReport(epoch, best_epoch, train_error, best_error, time.perf_counter() - started)


@torch.no_grad()
def reconstruction_error(model: nn.Module, x: Tensor) -> float:
    """Mean squared error of rows ``x`` [n, d] in eval mode (no mask, no noise); the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    total = sum(F.mse_loss(model(part).reconstruction, part, reduction="sum") for part in x.split(EVALUATION_ROWS))
    model.train(was_training)
    return float(total) / x.numel()


def _train_epoch(
    model: Any,
    optimizer: torch.optim.Optimizer,
    train: Tensor,
    batch_size: int,
    order: torch.Generator,
    weights: dict[str, float],
) -> NamedTuple:
    """One pass over ``train`` [rows, d]; returns the mean of every term as a float."""
    model.train()
    # Batches of nearly one size: a last batch of a few rows would give the twins term meaningless correlations.
    batches = torch.randperm(len(train), generator=order).to(train.device).chunk(math.ceil(len(train) / batch_size))
    totals: Any = 0
    for batch in batches:
        terms = model.loss(train[batch], **weights)
        optimizer.zero_grad()
        sum(terms).backward()
        optimizer.step()
        # Stays on the device: a float here would wait for the GPU every step.
        totals = totals + torch.stack(terms).detach()
    return type(terms)(*(totals / len(batches)).tolist())


def _check_finite(terms: NamedTuple, error: float, epoch: int) -> None:
    for name, value in [*terms._asdict().items(), ("held-out error", error)]:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"tokenizer, epoch {epoch}: {name} is {value}; check the vectors for NaN, or lower the learning rate"
            )
