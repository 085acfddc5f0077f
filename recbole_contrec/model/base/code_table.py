"""
recbole_contrec.model.base.code_table
#####################################
The codes of users or items with the word vector of every code, and where these vectors start.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

CODE_RMS = 0.1  # of a coordinate of the word vector of a code before training


class CodeTable(nn.Module):
    """The codes of users or items, and the learned word vector of every code.

    A row without a vector has no codes; it reads one stand-in, learned like a code, in each of its K places.

    Args:
        rows: users or items, row 0 for the padding.
        n_tokens: K.
        codebook_size: codes of a codebook (C); the number C is the stand-in.
        hidden_size: D.
        adds: whether a code is read as the sum of the word vectors up to it, the item as far as it is written. So residual
            quantisation puts codewords together, and the last code tells the whole item without a look at the others.
    """

    def __init__(self, rows: int, n_tokens: int, codebook_size: int, hidden_size: int, adds: bool = False):
        super().__init__()
        self.unknown_code = codebook_size
        self.adds = adds
        self.register_buffer("codes", torch.full((rows, n_tokens), codebook_size))
        self.register_buffer(
            "first", torch.arange(n_tokens) * (codebook_size + 1), persistent=False
        )  # of each codebook [K]
        self.words = nn.Embedding(n_tokens * (codebook_size + 1), hidden_size)
        nn.init.normal_(self.words.weight, std=CODE_RMS)  # K of them add up to the size of the item vectors beside them

    def forward(self, numbers: Tensor) -> Tensor:
        """What stands for users or items [...]: [..., K, D]."""
        return self.read(self.codes[numbers])

    def read(self, codes: Tensor) -> Tensor:
        """What stands for codes [..., K] in a history: [..., K, D]."""
        words = self.words(codes + self.first)
        return words.cumsum(-2) if self.adds else words

    def read_next(self, codes: Tensor, level: int, before: Tensor | None) -> Tensor:
        """The same [..., D] of codes [...] of one codebook; ``before`` is what was read of the code in front, None for none."""
        words = self.words(codes + self.first[level])
        return before + words if self.adds and before is not None else words

    @torch.no_grad()
    def sums(self) -> Tensor:
        """The word vectors of the codes of every row added up [N, D]."""
        return sum(self._words_at(level) for level in range(len(self.first)))

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        """Put the word vectors of codes where the rows lie that have them, by vectors [N, D] of any size."""
        for first, (used, means) in zip(self.first, means_by_code(vectors, self.codes, self.unknown_code)):
            if means.any():  # nothing is left where the codes before say all
                self.words.weight[first + used] = scaled(means, CODE_RMS)

    @torch.no_grad()
    def recode(self, codes: Tensor) -> None:
        """Give the rows other codes [N, K]. The word vectors of these start where the rows were read that have them."""
        if self.adds:
            placed = list(means_by_code(self.sums(), codes, self.unknown_code))  # they add up to what was read
        else:
            placed = [
                next(means_by_code(self._words_at(level), column[:, None], self.unknown_code))
                for level, column in enumerate(codes.T)
            ]
        for first, (used, means) in zip(self.first, placed):
            self.words.weight[first + used] = means
        self.codes.copy_(codes)

    def _words_at(self, level: int) -> Tensor:
        return self.words(self.codes[:, level] + self.first[level])  # [N, D]


def means_by_code(vectors: Tensor, codes: Tensor, n_codes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each of the K columns of codes [N, K]: the codes in use [c], and the mean [c, D] of what the columns before leave of
    the vectors [N, D] of the rows that have each."""
    for column in codes.T:
        sums = vectors.new_zeros(n_codes + 1, vectors.shape[1]).index_add_(0, column, vectors)
        counts = torch.bincount(column, minlength=n_codes + 1)  # [C + 1]
        means = sums / counts.clamp(min=1)[:, None]
        vectors = vectors - means[column]
        used = counts[:n_codes].nonzero().squeeze(1)
        yield used, means[used]


def scaled(vectors: Tensor, rms: float) -> Tensor:
    """Vectors [n, D] with this root mean square over all coordinates."""
    return rms * vectors / vectors.square().mean().sqrt()
