"""
recbole_contrec.tokenizer.new_items
###################################
Codes of items that have come since the codebooks were made, among those of the known ones.
"""

import torch
from torch import Tensor

from recbole_contrec.errors import UserError


def nearest_codes(features: Tensor, codes: Tensor, known: Tensor, new: Tensor, levels: int) -> Tensor:
    """The first codes [m, levels] of new items: of every codebook the codeword that is nearest to what is left. A
    codeword is the mean of what its known items leave of their vectors.

    Args:
        features: vectors of all items [N, d].
        codes: of all items [N, K]; those of new ones are not read.
        known: numbers of items that have codes [n].
        new: numbers of those that have none [m].
        levels: how many codes are wanted.
    """
    left, asked, found = features[known].clone(), features[new].clone(), []
    for level in range(levels):
        column = codes[known, level]
        used, of_item = column.unique(return_inverse=True)
        means = torch.zeros(len(used), left.shape[1]).index_add_(0, of_item, left)
        means = means / torch.bincount(of_item, minlength=len(used))[:, None]
        nearest = torch.cdist(asked, means).argmin(1)  # [m]
        found.append(used[nearest])
        left, asked = left - means[of_item], asked - means[nearest]
    return torch.stack(found, 1)


def free_codes(wanted: list[int], taken: set[tuple[int, ...]], size: int) -> list[int]:
    """Codes of an item of its own: as wanted where they are free, else with the first last code that is.

    Args:
        wanted: codes of the item [K].
        taken: codes of all others; those that are found are added.
        size: of the last codebook.

    Raises:
        UserError: every last code is taken.
    """
    front = wanted[:-1]
    choices = [wanted[-1], *range(size)] if wanted[-1] < size else range(size)
    for last in choices:
        if (*front, last) not in taken:
            taken.add((*front, last))
            return [*front, last]
    raise UserError(
        f"all {size} last codes behind {front} are taken by items: new ones cannot be told apart; train anew with a "
        "larger codebook_size"
    )
