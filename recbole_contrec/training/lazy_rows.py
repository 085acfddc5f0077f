"""
recbole_contrec.training.lazy_rows
##################################
Lazy Adam: a step that costs what it touches. With a sampled softmax, the gradient of an item table has few rows that
are not zero; a dense optimizer updates all of them.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def sparse_tables(model: nn.Module) -> list[Tensor]:
    """Trained embedding tables whose gradients are sparse."""
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
    return [table for table in tables.values() if table.requires_grad]


class LazyRows:
    """A hook before the steps of Adam or AdamW, which takes the sparse gradients of tables and updates their rows
    alone, by Adam's rule.

    Moments of a row that a step does not touch stay as they are, where Adam lets them decay and still moves the row by
    them; the number of steps in the bias correction is that of the table. It is the lazy Adam of torch's
    ``SparseAdam`` and of TensorFlow, with the state of a dense Adam, so that checkpoints look alike.

    Args:
        tables: without weight decay.

    Attributes:
        before: called with a table and the numbers of its rows before they change.
    """

    def __init__(self, tables: Iterable[Tensor]):
        self.tables = list(tables)
        self.before: Callable[[Tensor, Tensor], None] = lambda table, rows: None

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        overflown = getattr(optimizer, "found_inf", None)  # where the loss is scaled, such a step is left out
        skipped = overflown is not None and bool(overflown)
        options = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for table in self.tables:
            if table.grad is None:
                continue
            gradient, table.grad = table.grad.coalesce(), None  # the dense step passes it over
            if not skipped:
                rows = gradient.indices()[0]
                self.before(table, rows)
                _update(table, rows, gradient.values(), optimizer.state[table], options[id(table)])


def _update(table: Tensor, rows: Tensor, gradient: Tensor, state: dict, options: dict) -> None:
    """Adam's rule (Kingma and Ba, 2015, algorithm 1) for some rows [m] and their gradient [m, d]."""
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
    state["step"] += 1
    step, (beta1, beta2) = state["step"].item(), options["betas"]
    mean = state["exp_avg"][rows].lerp_(gradient, 1 - beta1)
    square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
    denominator = (square.sqrt_() / (1 - beta2**step) ** 0.5).add_(options["eps"])
    table[rows] -= options["lr"] / (1 - beta1**step) * mean / denominator


def as_dense(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Parameters as ``clip_grad_norm_`` takes them: tensors with a dense ``grad``. For a sparse gradient that is one of
    its rows alone, which share their memory with it."""
    return [_rows_of(p) if p.grad is not None and p.grad.is_sparse else p for p in parameters]


def _rows_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    parameter.grad = parameter.grad.coalesce()  # a row that stands there twice counts as one
    values = parameter.grad._values()
    rows = torch.empty_like(values)
    rows.grad = values
    return rows
