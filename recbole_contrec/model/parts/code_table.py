"""
recbole_contrec.model.parts.code_table
######################################
The codes of users or items with the learned vector of every code, and where these vectors start.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

CODE_RMS = 0.1  # root mean square of a coordinate of a code's vector before training


class CodeTable(nn.Module):
    """The codes of users or items, and the learned vector of every code.

    A row without codes reads a stand-in in each of its K places, one learned vector a place.

    Axes: N rows, K codebooks, C codes of a codebook, D width.

    Args:
        rows: users or items (N), row 0 for the padding.
        num_codebooks: codes of a row (K), one from each codebook.
        codebook_size: C; the number C is the stand-in.
        hidden_size: D.
        cumulative: whether a code is read as the sum of the vectors up to it, so that the last code stands for the
            whole item, as residual quantisation adds codewords up.
    """

    codes: Tensor  # [N, K]
    first: Tensor  # [K]    where the vectors of each codebook begin

    def __init__(self, rows: int, num_codebooks: int, codebook_size: int, hidden_size: int, cumulative: bool = False):
        super().__init__()
        self.unknown_code = codebook_size
        self.cumulative = cumulative
        self.register_buffer("codes", torch.full((rows, num_codebooks), codebook_size))
        self.register_buffer("first", torch.arange(num_codebooks) * (codebook_size + 1), persistent=False)
        self.words = nn.Embedding(num_codebooks * (codebook_size + 1), hidden_size)
        nn.init.normal_(self.words.weight, std=CODE_RMS)  # K of them add up to the size of the item vectors beside them

    @property
    def codebook_size(self) -> int:
        """Codes of a codebook (C)."""
        return self.unknown_code

    @property
    def num_codebooks(self) -> int:
        """Codes of a row (K)."""
        return self.codes.shape[1]

    @property
    def known(self) -> Tensor:
        """Which rows have codes [N]."""
        return self.codes[:, 0] != self.unknown_code

    def forward(self, rows: Tensor) -> Tensor:
        """What is read of users or items [...]: [..., K, D]."""
        return self.read(self.codes[rows])

    def read(self, codes: Tensor) -> Tensor:
        """What is read of codes [..., K]: [..., K, D]."""
        vectors = self.words(codes + self.first)
        return vectors.cumsum(-2) if self.cumulative else vectors

    def read_next(self, codes: Tensor, level: int, before: Tensor | None) -> Tensor:
        """What is read of codes [...] of one codebook, [..., D].

        Args:
            level: number of the codebook, from 0.
            before: what was read of the code in front [..., D]; None for none.
        """
        vectors = self.words(codes + self.first[level])
        return before + vectors if self.cumulative and before is not None else vectors

    @torch.no_grad()
    def sums(self) -> Tensor:
        """The vectors of the codes of every row added up [N, D]."""
        return sum_of(self._vectors_at(level) for level in range(self.num_codebooks))

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        """Put the vector of every code where the rows lie that have it, by vectors [N, D] of any size."""
        for first, (used, means) in zip(self.first, means_by_code(vectors, self.codes, self.unknown_code)):
            if means.any():  # nothing is left where the codes before say all
                self.words.weight[first + used] = scaled(means, CODE_RMS)

    @torch.no_grad()
    def recode(self, codes: Tensor) -> None:
        """Give the rows other codes [N, K]. The vector of a code starts at the mean of what was read of its rows."""
        if self.cumulative:
            placed = list(means_by_code(self.sums(), codes, self.unknown_code))  # they add up to what was read
        else:
            placed = [
                next(means_by_code(self._vectors_at(level), column[:, None], self.unknown_code))
                for level, column in enumerate(codes.T)
            ]
        for first, (used, means) in zip(self.first, placed):
            self.words.weight[first + used] = means
        self.codes.copy_(codes)

    def _vectors_at(self, level: int) -> Tensor:
        return self.words(self.codes[:, level] + self.first[level])  # [N, D]


def means_by_code(vectors: Tensor, codes: Tensor, codebook_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The mean of the vectors that have each code, codebook by codebook, of what the codebooks before leave.

    Args:
        vectors: of all rows [N, D].
        codes: of all rows [N, K].

    Yields:
        tuple: for each of the K codebooks the codes in use [c] and their means [c, D].
    """
    for column in codes.T:
        sums = vectors.new_zeros(codebook_size + 1, vectors.shape[1]).index_add_(0, column, vectors)
        counts = torch.bincount(column, minlength=codebook_size + 1)  # [C + 1]
        means = sums / counts.clamp(min=1)[:, None]
        vectors = vectors - means[column]
        used = counts[:codebook_size].nonzero().squeeze(1)
        yield used, means[used]


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors of one shape added up in their order; at least one."""
    first, *others = tensors
    for other in others:
        first = first + other
    return first


def scaled(vectors: Tensor, rms: float) -> Tensor:
    """Vectors [n, D] with this root mean square over all coordinates."""
    return rms * vectors / vectors.square().mean().sqrt()
