"""
recbole_contrec.model.parts.code_tokens
#######################################
Discrete codes of items and users: what a masked vector quantiser makes of their vectors, and what the language model
reads for them.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_contrec.interface import ITEMS, USERS, Report, Stage, StageResult
from recbole_contrec.model.parts.code_table import CodeTable
from recbole_contrec.model.parts.fitting import fitted
from recbole_contrec.model.parts.settings import FitSettings
from recbole_contrec.tokenizer import (
    FoldIn,
    MaskedVQ,
    code_report,
    collision_rate,
    default_codes,
    distinct_codes,
    encode_rows,
    seen_rows,
)


@dataclass(frozen=True)
class QuantiserSettings:
    """What the quantisers of items and users are made by, and how they are fitted."""

    vector_size: int  # d
    codebook_size: int | None  # C; None follows the number of rows
    token_size: int
    hidden_size: int
    mask_ratio: float
    dropout: float
    restart_below: float
    gradient: str
    codebook_weight: float
    commitment_weight: float
    distinct: bool  # whether rows with the same codes are told apart
    fit: FitSettings

    @classmethod
    def from_config(cls, config: Any) -> "QuantiserSettings":
        return cls(
            vector_size=config["vector_size"],
            codebook_size=config["codebook_size"],
            token_size=config["token_size"],
            hidden_size=config["tokenizer_hidden_size"],
            mask_ratio=config["token_mask_ratio"],
            dropout=config["tokenizer_dropout"],
            restart_below=config["dead_code_threshold"],
            gradient=config["code_gradient"],
            codebook_weight=config["codebook_weight"],
            commitment_weight=config["commitment_weight"],
            distinct=config["distinct_codes"],
            fit=FitSettings.from_config(config),
        )

    def new(self, num_codebooks: int, rows: int) -> MaskedVQ:
        """A quantiser of K codes for so many rows, frozen: a stage fits it.

        Raises:
            ValueError: more codes than rows.
        """
        codebook_size = self.codebook_size or default_codes(rows)
        if codebook_size > rows:
            raise ValueError(
                f"codebook_size={codebook_size}: a codebook cannot have more codes than the table has rows ({rows})"
            )
        quantiser = MaskedVQ(
            self.vector_size,
            num_codebooks,
            codebook_size,
            self.token_size,
            self.hidden_size,
            self.mask_ratio,
            self.dropout,
            self.restart_below,
            self.gradient,
        )
        return quantiser.requires_grad_(False).eval()

    def codes(self, quantiser: MaskedVQ, vectors: Tensor) -> Tensor:
        """Codes [rows, K] of vectors [rows, d], by a quantiser that is fitted."""
        return (distinct_codes if self.distinct else encode_rows)(quantiser, vectors)

    def stage(self, name: str, part: "ItemCodes | UserCodes", vectors: Tensor) -> Stage:
        """The stage that fits the quantiser of items or users to their vectors [rows, d], and keeps the codes of
        these."""
        quantiser, table = part.quantiser, part.table

        def build(report: Report) -> StageResult:
            device = table.codes.device
            weights = {"codebook_weight": self.codebook_weight, "commitment_weight": self.commitment_weight}
            result = fitted(self.fit, quantiser, vectors.to(device), report, code_report, **weights)
            codes = self.codes(quantiser, vectors)
            left = collision_rate(codes[seen_rows(vectors)])
            return StageResult({**result.tensors, "codes of rows": codes}, {**result.report, "collisions_left": left})

        def accept(tensors: dict[str, Tensor]) -> None:
            quantiser.load_state_dict({key: tensor for key, tensor in tensors.items() if key != "codes of rows"})
            table.codes.copy_(tensors["codes of rows"])

        settings = {
            **asdict(self),
            "tokenizer": "masked VQ",
            "tokens": quantiser.n_tokens,
            "codebook_size": quantiser.codebook_size,
        }
        return Stage(name, settings, build, accept)


class ItemCodes(nn.Module):
    """The codes of all items, and what the language model reads for them.

    Axes: B batch, L history length, K codes, D width of the language model, d width of an item vector, N items.

    Args:
        quantiser: from vectors to K codes; fitted by a stage and frozen.
        n_items: N.
        hidden_size: D.
    """

    def __init__(self, quantiser: MaskedVQ, n_items: int, hidden_size: int):
        super().__init__()
        self.quantiser = quantiser
        self.table = CodeTable(n_items, quantiser.n_tokens, quantiser.codebook_size, hidden_size)

    def train(self, mode: bool = True) -> "ItemCodes":
        super().train(mode)
        self.quantiser.eval()  # frozen: not masked where it only translates
        return self

    def forward(self, items: Tensor) -> Tensor:
        """What is read for items: [B, L] -> [B, L, K, D]."""
        return self.table(items)

    @torch.no_grad()
    def set(self, items: Tensor, vectors: Tensor) -> None:
        """Take the codes of items [m] from their vectors [m, d]."""
        self.table.codes[items] = self.quantiser.encode(vectors)

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"table.codes": ITEMS}

    def add_items(self, count: int) -> None:
        """More items, without codes."""
        rows = self.table.codes.new_full((count, self.table.codes.shape[1]), self.table.unknown_code)
        self.table.codes = torch.cat([self.table.codes, rows])


class GivenItemCodes(nn.Module):
    """The same where the codes come from elsewhere, and no quantiser makes them.

    Args:
        n_items: N.
        num_codebooks: K.
        codebook_size: C.
        hidden_size: D.
    """

    def __init__(self, n_items: int, num_codebooks: int, codebook_size: int, hidden_size: int):
        super().__init__()
        self.table = CodeTable(n_items, num_codebooks, codebook_size, hidden_size)

    def forward(self, items: Tensor) -> Tensor:
        """What is read for items: [B, L] -> [B, L, K, D]."""
        return self.table(items)

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"table.codes": ITEMS}


class UserCodes(nn.Module):
    """The codes of users, and what the language model reads for them.

    Users who were not in training are folded in from their history. Where nothing of it is known, and for some users in
    training, a learned stand-in is read.

    Axes: B batch, L history length, K codes, D width of the language model, U users.

    Args:
        quantiser: from vectors to K codes; fitted by a stage and frozen.
        n_users: U.
        hidden_size: D.
        dropout: share of training users for whom the stand-in is read.
        fold_in: makes vectors of the histories of new users; None to read all of them as the stand-in.
    """

    def __init__(
        self,
        quantiser: MaskedVQ,
        n_users: int,
        hidden_size: int,
        dropout: float = 0.0,
        fold_in: FoldIn | None = None,
    ):
        super().__init__()
        self.quantiser, self.fold_in, self.dropout = quantiser, fold_in, dropout
        self.table = CodeTable(n_users, quantiser.n_tokens, quantiser.codebook_size, hidden_size)

    def train(self, mode: bool = True) -> "UserCodes":
        super().train(mode)
        self.quantiser.eval()
        return self

    def forward(self, users: Tensor, item_seq: Tensor) -> Tensor:
        """What is read for users [B] with histories [B, L]: [B, K, D]."""
        codes = self.table.codes[users]  # [B, K]
        if self.training:
            # The codes of a training user were computed from their training targets as well; reading them every
            # time, the model would learn to look the answer up instead of reading the history.
            hidden = torch.rand(len(users), device=users.device) < self.dropout
            codes = codes.masked_fill(hidden[:, None], self.table.unknown_code)
        elif self.fold_in is not None:
            new = (codes[:, 0] == self.table.unknown_code).nonzero().squeeze(1)  # [n]
            vectors = self.fold_in(item_seq[new])  # [n, d]
            some = (vectors != 0).any(1)
            codes[new[some]] = self.quantiser.encode(vectors[some])
        return self.table.read(codes)

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"table.codes": USERS, **({} if self.fold_in is None else {"fold_in.features": ITEMS})}

    def of_histories(self, item_seq: Tensor) -> Tensor:
        """What is read for people who are not in the data, by their histories [B, L]: [B, K, D], in eval mode."""
        codes = self.table.codes.new_full((item_seq.shape[0], self.table.num_codebooks), self.table.unknown_code)
        if self.fold_in is not None:
            vectors = self.fold_in(item_seq)  # [B, d]
            some = (vectors != 0).any(1, keepdim=True)
            codes = torch.where(some, self.quantiser.encode(vectors), codes)
        return self.table.read(codes)


def user_codes_of(
    config: Any, quantisers: QuantiserSettings, n_users: int, n_items: int, hidden_size: int
) -> UserCodes | None:
    """The codes of users that the settings ask for; None for none.

    Args:
        n_users: rows of the table, the padding included.
        n_items: N.
        hidden_size: D.
    """
    count = config["num_user_codebooks"]
    if not count:
        return None
    return UserCodes(
        quantisers.new(count, n_users - 1),
        n_users,
        hidden_size,
        dropout=config["user_token_dropout"],
        fold_in=FoldIn(n_items, config["vector_size"]) if config["fold_in"] else None,
    )
