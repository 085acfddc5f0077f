"""
recbole_contrec.model.parts.fitting
###################################
A tokenizer fitted as a stage of a run.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from recbole_contrec.interface import Report, StageResult
from recbole_contrec.model.parts.settings import FitSettings
from recbole_contrec.tokenizer import fit_tokenizer, split_rows


def fitted(
    settings: FitSettings, tokenizer: nn.Module, vectors: Tensor, report: Report, health: Callable, **weights: Any
) -> StageResult:
    """Train a tokenizer on ``vectors`` [rows, d] and freeze it.

    Args:
        health: called as ``health(tokenizer, vectors, held_out_rows)``; a NamedTuple, which is reported.
        weights: of the terms of the tokenizer's loss.
    """
    tokenizer.requires_grad_(True)
    found = fit_tokenizer(
        tokenizer,
        vectors,
        **vars(settings),
        on_epoch=lambda epoch, total, loss, error: report(epoch, total, f"held-out error {error:.4f}"),
        **weights,
    )
    tokenizer.zero_grad(set_to_none=True)  # a frozen part has no say in the clipping of gradients
    tokenizer.requires_grad_(False).eval()
    held_out = split_rows(vectors, 0.1, settings.seed).held_out
    return StageResult(
        tokenizer.state_dict(), {"epochs": found.epochs_run, **health(tokenizer, vectors, held_out)._asdict()}
    )
