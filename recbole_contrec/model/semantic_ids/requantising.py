"""
recbole_contrec.model.semantic_ids.requantising
###############################################
New semantic ids from where a model expects the items: its states in front of them in training histories, quantised.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_contrec.interface import Refined
from recbole_contrec.model.parts.code_table import CodeTable
from recbole_contrec.model.parts.targets import WindowBatch
from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder
from recbole_contrec.tokenizer import seen_rows, standardise, with_counter

DISTANCES = 2**24  # between items that are computed at once
PRIOR_STATES = 3  # at the mean of all, with which the few states before a rare item are averaged


class Expected(NamedTuple):
    """Where a model expects the items."""

    means: Tensor  # [N, D]    less the mean of all targets; zeros for items that are no target
    counts: Tensor  # [N]       targets


def states_before_items(decoder: CodeDecoder, batches: Iterable[WindowBatch]) -> Expected:
    """Where a model in eval mode expects each item: the mean of its states in front of the item's first code, over the
    targets of the batches.

    Few states say little, so :data:`PRIOR_STATES` more at the mean of all are averaged with them.
    """
    codes, width = decoder.item_codes.codes, decoder.heads[0].in_features
    sums, counts = (torch.zeros(len(codes), columns, dtype=torch.double, device=codes.device) for columns in (width, 1))
    for batch in batches:
        targets = decoder.targets(batch)  # states [n, K, D]
        states = targets.states[:, 0].double()  # [n, D]
        sums.index_add_(0, targets.items, states)
        counts.index_add_(0, targets.items, states.new_ones(len(states), 1))
    means = (sums - counts * sums.sum(0) / counts.sum()) / (counts + PRIOR_STATES)
    return Expected(means.float(), counts.squeeze(1).float())


def requantised(
    table: CodeTable, expected: Expected, quantise: Callable[[Tensor], Tensor], whitening: float
) -> Refined:
    """Semantic ids [N, K] of where items are expected; those of now, with the reason in the report, where a last code
    cannot tell all items apart.

    Args:
        table: of the codes of now.
        expected: where the items are.
        quantise: from vectors [N, D] to all codes but the last [N, K - 1].
        whitening: how far the principal axes are brought to one scale, see :func:`whitened`.
    """
    vectors = expected.means * (seen_rows(expected.means) & table.known)[:, None]
    vectors = standardise(whitened(vectors, whitening))
    try:
        codes = with_counter(_all_quantised(table, vectors, quantise), table.unknown_code)
    except (ValueError, FloatingPointError) as error:  # all that a run has learned must not be lost for this
        return Refined(table.codes.clone(), {"failed": str(error)})
    return Refined(codes, {}, vectors, expected.counts)


def _all_quantised(table: CodeTable, vectors: Tensor, quantise: Callable[[Tensor], Tensor]) -> Tensor:
    """Codes [N, K - 1] of vectors [N, D], in which items without a vector take over that of another.

    What is nobody's next item is read in histories all the same: it takes the place of what is read most alike.
    """
    codes, expected = quantise(vectors).to(vectors.device), seen_rows(vectors)
    others, read = expected.nonzero().squeeze(1), table.sums()
    theirs = read[others]
    for part in (table.known & ~expected).nonzero().squeeze(1).split(max(1, DISTANCES // len(others))):
        alike = others[torch.cdist(read[part], theirs).argmin(1)]
        codes[part], vectors[part] = codes[alike], vectors[alike]
    return codes


def whitened(vectors: Tensor, share: float) -> Tensor:
    """Vectors [N, D], centred, that vary more alike along their principal axes, which stay where they are: a standard
    deviation s becomes s ** (1 - share). Rows of zeros stay zero.

    Most of where an item is expected says how popular it is, and how recent. Codes that say nothing else tell few items
    apart.
    """
    rows = seen_rows(vectors)
    centred = vectors[rows].double()
    centred = centred - centred.mean(0)
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))  # [D], [D, D]
    scale = variance.clamp(min=1e-12 * float(variance.max())) ** (-share / 2)
    result = torch.zeros_like(vectors)
    result[rows] = (centred @ axes * scale @ axes.T).to(vectors)
    return result
