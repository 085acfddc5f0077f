"""
recbole_contrec.model.parts.continuous_tokens
#############################################
Continuous tokens of items and users: what a sigma-VAE makes of their vectors, and what the language model reads for
them.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_contrec.interface import ITEMS, USERS, Report, Stage, StageResult
from recbole_contrec.model.parts.fitting import fitted
from recbole_contrec.model.parts.learned_vectors import lengthen
from recbole_contrec.model.parts.settings import FitSettings
from recbole_contrec.tokenizer import FoldIn, SigmaVAE, WholeVector, health_report

AT_ONCE = 2**16  # items whose tokens are computed together: what bounds the memory of a large catalogue


@dataclass(frozen=True)
class TokenizerSettings:
    """What the tokenizers of items and users are made by, and how they are fitted."""

    kind: str  # a variant of the sigma-VAE, or "none": the vector itself is the one token
    vector_size: int  # d
    token_size: int
    hidden_size: int
    mask_ratio: float
    sigma: float
    dropout: float
    mean_weight: float
    twins_weight: float
    fit: FitSettings

    @classmethod
    def from_config(cls, config: Any) -> "TokenizerSettings":
        return cls(
            kind=config["tokenizer"],
            vector_size=config["vector_size"],
            token_size=config["token_size"],
            hidden_size=config["tokenizer_hidden_size"],
            mask_ratio=config["token_mask_ratio"],
            sigma=config["token_sigma"],
            dropout=config["tokenizer_dropout"],
            mean_weight=config["kl_weight"],
            twins_weight=config["barlow_twins_weight"],
            fit=FitSettings.from_config(config),
        )

    def new(self, n_tokens: int) -> SigmaVAE | WholeVector:
        """A tokenizer of K tokens, frozen: a stage fits it."""
        if self.kind == "none":
            return WholeVector()
        tokenizer = SigmaVAE(
            self.vector_size,
            n_tokens,
            self.token_size,
            self.hidden_size,
            self.mask_ratio,
            self.sigma,
            self.dropout,
            variant=self.kind,
        )
        return tokenizer.requires_grad_(False).eval()

    def stage(self, name: str, tokenizer: Any, vectors: Tensor) -> Stage:
        """The stage that fits a tokenizer to vectors [rows, d]."""
        return Stage(
            name,
            {**asdict(self), "tokens": tokenizer.n_tokens},
            lambda report: self._fitted(tokenizer, vectors, report),
            tokenizer.load_state_dict,
        )

    def _fitted(self, tokenizer: SigmaVAE, vectors: Tensor, report: Report) -> StageResult:
        device = next(tokenizer.parameters()).device
        weights = {"mean_weight": self.mean_weight, "twins_weight": self.twins_weight}
        return fitted(self.fit, tokenizer, vectors.to(device), report, health_report, **weights)


@dataclass(frozen=True)
class ItemTokenSettings:
    """How the tokens of items are kept and read."""

    count: int  # K
    size: int
    trained: bool  # whether the tokens themselves are trained
    noise: float | None  # level of the noise on them in training; None for none
    lazy: bool = False  # a step updates those rows alone that it touches

    @classmethod
    def from_config(cls, config: Any) -> "ItemTokenSettings":
        of_table = config["item_tokens"], config["token_size"], config["train_item_tokens"]
        return cls(*of_table, noise_level(config), bool(config["lazy_adam"]))


@dataclass(frozen=True)
class UserTokenSettings:
    """How the tokens of users are made and read."""

    count: int  # K
    size: int
    vector_size: int  # d
    dropout: float  # share of training users for whom the stand-in is read
    noise: float | None  # level of the noise on tokens in training; None for none

    @classmethod
    def from_config(cls, config: Any) -> "UserTokenSettings":
        return cls(
            config["user_tokens"],
            config["token_size"],
            config["vector_size"],
            config["user_token_dropout"],
            noise_level(config),
        )


def noise_level(config: Any) -> float | None:
    """Of the noise on tokens that are read in training. Of tokenizers but the sigma-VAE the means are read: a learned
    variance is drawn from while the tokenizer itself trains only."""
    return config["token_sigma"] if config["token_noise"] and config["tokenizer"] == "sigma" else None


class ItemTokens(nn.Module):
    """The tokens of all items, and what the language model reads for them.

    Axes: B batch, L history length, K tokens, D width of the language model, d width of an item vector, N items.

    Args:
        tokenizer: from vectors to tokens; fitted by a stage and frozen.
        n_items: N.
        hidden_size: D.
        settings: how many tokens there are, and how they are read.
    """

    def __init__(self, tokenizer: SigmaVAE | WholeVector, n_items: int, hidden_size: int, settings: ItemTokenSettings):
        super().__init__()
        self.tokenizer, self.settings = tokenizer, settings
        self.table = nn.Embedding(n_items, settings.count * settings.size, sparse=settings.lazy)
        self.table.weight.requires_grad_(settings.trained)
        self.adapter = TokenAdapter(settings.count, settings.size, hidden_size)
        nn.init.zeros_(self.table.weight)

    def train(self, mode: bool = True) -> "ItemTokens":
        super().train(mode)
        self.tokenizer.eval()  # frozen: neither masked nor noisy where it only translates
        return self

    def forward(self, items: Tensor) -> Tensor:
        """What is read for items: [B, L] -> [B, L, K, D]."""
        tokens = self.table(items).unflatten(-1, (self.settings.count, -1))  # [B, L, K, token_size]
        if self.training and self.settings.noise is not None:
            tokens = noisy(tokens, self.settings.noise)
        return self.adapter(tokens)

    @torch.no_grad()
    def set(self, items: Tensor, vectors: Tensor) -> None:
        """Take the tokens of items [m] from their vectors [m, d]."""
        for some, theirs in zip(items.split(AT_ONCE), vectors.split(AT_ONCE)):
            self.table.weight[some] = self._rows(some, theirs)

    @torch.no_grad()
    def are_of(self, vectors: Tensor) -> bool:
        """Whether the tokens are those of some vectors [N, d]. Where they have been trained, nothing tells."""
        if self.settings.trained:
            return True
        items = torch.arange(len(vectors), device=vectors.device)
        parts = zip(items.split(AT_ONCE), vectors.split(AT_ONCE), self.table.weight.split(AT_ONCE))
        return all(torch.allclose(self._rows(some, theirs), rows, atol=1e-2) for some, theirs, rows in parts)

    def _rows(self, items: Tensor, vectors: Tensor) -> Tensor:
        tokens = self.tokenizer.encode(vectors)  # [m, K, token_size]
        return tokens.flatten(1) * (items > 0)[:, None]

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"table.weight": ITEMS}

    def add_items(self, count: int) -> None:
        """More items, without tokens."""
        lengthen(self.table, count)


class UserTokens(nn.Module):
    """The tokens of users, and what the language model reads for them.

    Users who were not in training are folded in from their history. Where nothing of it is known, and for some users in
    training, a learned stand-in is read.

    Axes: B batch, L history length, K tokens, D width of the language model, d width of a user's vector, U users.

    Args:
        tokenizer: from vectors to tokens; fitted by a stage and frozen.
        n_users: U.
        hidden_size: D.
        settings: how many tokens there are, and how they are read.
        fold_in: makes vectors of the histories of new users; None to read all of them as the stand-in.
    """

    vectors: Tensor  # [U, d]; zeros for users without one

    def __init__(
        self,
        tokenizer: SigmaVAE | WholeVector,
        n_users: int,
        hidden_size: int,
        settings: UserTokenSettings,
        fold_in: FoldIn | None = None,
    ):
        super().__init__()
        self.tokenizer, self.settings, self.fold_in = tokenizer, settings, fold_in
        self.register_buffer("vectors", torch.zeros(n_users, settings.vector_size))
        # learned where it stands in for users in training; else new users without a history are read as the mean one
        none = torch.zeros(settings.count, settings.size)
        self.unknown = nn.Parameter(none, requires_grad=settings.dropout > 0)
        self.adapter = TokenAdapter(settings.count, settings.size, hidden_size)

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices."""
        return {"unknown"}

    def train(self, mode: bool = True) -> "UserTokens":
        super().train(mode)
        self.tokenizer.eval()
        return self

    def forward(self, users: Tensor, item_seq: Tensor) -> Tensor:
        """What is read for users [B] with histories [B, L]: [B, K, D]."""
        vectors = self.vectors[users]  # [B, d]
        if self.fold_in is not None and not self.training:
            new = (vectors == 0).all(1)
            vectors[new] = self.fold_in(item_seq[new])
        tokens = self.tokenizer.encode(vectors)  # [B, K, token_size]
        hidden = (vectors == 0).all(1)
        if self.training:
            # The vector of a training user was computed from their training targets as well; reading it every
            # time, the model would learn to look the answer up instead of reading the history.
            hidden = hidden | (torch.rand(len(users), device=users.device) < self.settings.dropout)
            tokens = tokens if self.settings.noise is None else noisy(tokens, self.settings.noise)
        return self.adapter(torch.where(hidden[:, None, None], self.unknown, tokens))

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"vectors": USERS, **({} if self.fold_in is None else {"fold_in.features": ITEMS})}

    def of_histories(self, item_seq: Tensor) -> Tensor:
        """What is read for people who are not in the data, by their histories [B, L]: [B, K, D], in eval mode."""
        if self.fold_in is None:
            return self.adapter(self.unknown.expand(item_seq.shape[0], -1, -1))
        vectors = self.fold_in(item_seq)  # [B, d]
        hidden = (vectors == 0).all(1)
        return self.adapter(torch.where(hidden[:, None, None], self.unknown, self.tokenizer.encode(vectors)))


class TokenAdapter(nn.Module):
    """From the width of a token to the width of the language model, one linear map for each of the K tokens.

    It starts small: tokens of unit variance come out at 0.2, about as large as the learned item vectors beside them.
    """

    def __init__(self, n_tokens: int, token_size: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_tokens, token_size, hidden_size) * 0.2 * token_size**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_tokens, hidden_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., K, token_size] -> [..., K, D]."""
        return torch.einsum("...kt,ktd->...kd", tokens, self.weight) + self.bias


def noisy(tokens: Tensor, sigma: float) -> Tensor:
    """The noise of the sigma-VAE on tokens [..., K, token_size], one level for the K tokens of an entity."""
    level = sigma * torch.randn(*tokens.shape[:-2], 1, 1, device=tokens.device)
    return tokens + level * torch.randn_like(tokens)


def user_tokens_of(
    config: Any, tokenizers: TokenizerSettings, n_users: int, n_items: int, hidden_size: int
) -> UserTokens | None:
    """The tokens of users that the settings ask for; None for none.

    Args:
        n_users: rows of the table, the padding included.
        n_items: N.
        hidden_size: D.
    """
    if not config["user_tokens"]:
        return None
    tokenizer = tokenizers.new(config["user_tokens"])
    fold_in = FoldIn(n_items, config["vector_size"]) if config["fold_in"] else None
    return UserTokens(tokenizer, n_users, hidden_size, UserTokenSettings.from_config(config), fold_in)
