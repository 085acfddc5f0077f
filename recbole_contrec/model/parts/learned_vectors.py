"""
recbole_contrec.model.parts.learned_vectors
###########################################
The vectors of the items: the space in which preferences are generated and retrieved. They may be read with the tokens
of the items as well.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.interface import ITEMS
from recbole_contrec.item_vectors.sources import text_columns

START_RMS = 0.02  # of a coordinate of an item vector that trains, before it does
LAZY_LEARNERS = "adam", "adamw"
KEPT_GROWTH = 2.0  # a coordinate that is kept is so many times as large: those that train grow to about that


@dataclass(frozen=True)
class ItemVectorSettings:
    """What an :class:`ItemVectors` is made by."""

    size: int  # d
    trained: bool  # through the losses; else the collaborative vectors stay
    start_at_vectors: bool  # at the collaborative vectors, or small and random
    read: bool  # with the tokens of an item
    kept: range = range(0)  # columns that stay at the collaborative vectors while the others train
    lazy: bool = False  # a step updates those rows alone that it touches

    @classmethod
    def from_config(cls, config: Any) -> "ItemVectorSettings":
        return cls(
            config["vector_size"],
            config["train_item_vectors"],
            config["item_vectors_init"] == "vectors",
            config["id_embedding"],
            kept_columns(config, config["vector_size"]),
            bool(config["lazy_adam"]),
        )


class ItemVectors(nn.Embedding):
    """A learned vector for every item.

    Axes: B batch, L history length, K tokens, D width of the language model, d width of an item vector, N items.

    Args:
        n_items: N; row 0 is the padding.
        hidden_size: D.
        place: the token of an item that its vector is added to: the first (0), or the last (-1) where the others would
            be given away by it.
    """

    def __init__(self, n_items: int, hidden_size: int, settings: ItemVectorSettings, place: int = 0):
        super().__init__(n_items, settings.size, sparse=settings.lazy)
        self.settings, self.place = settings, place
        self.weight.requires_grad_(settings.trained)
        keep(self.weight, settings.kept)
        # of one width, the vectors are read as they are: what is retrieved and what is read stay tied
        same = settings.size == hidden_size
        self.adapter = nn.Identity() if same else nn.Linear(settings.size, hidden_size, bias=False)

    @torch.no_grad()
    def start(self, vectors: Tensor) -> None:
        """Begin at collaborative vectors [N, d], where the settings want that."""
        # small where they train, so that training can still turn them
        start(self.weight, vectors, self.settings, START_RMS if self.settings.trained else 1.0)

    def add_to(self, tokens: Tensor, items: Tensor) -> Tensor:
        """Add the vector of every item [B, L] to one of its tokens [B, L, K, D], where vectors are read."""
        if not self.settings.read:
            return tokens
        scale = self.embedding_dim**0.5
        if not self.settings.trained:  # of unit size, where those that train start small
            scale *= START_RMS
        vectors = self.adapter(self(items) * scale)[:, :, None]  # [B, L, 1, D]
        if self.place == 0:
            return torch.cat([tokens[:, :, :1] + vectors, tokens[:, :, 1:]], dim=2)
        return torch.cat([tokens[:, :, :-1], tokens[:, :, -1:] + vectors], dim=2)

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"weight": ITEMS}

    # items that were not in training

    @torch.no_grad()
    def add_items(self, count: int) -> None:
        """More rows, of zeros."""
        lengthen(self, count)

    @torch.no_grad()
    def predicted(self, vectors: Tensor, known_vectors: Tensor, known: Tensor) -> Tensor:
        """Vectors of items that were not in training.

        They come from the linear map that fits best from the collaborative vectors of the known items to theirs here,
        at the mean length of theirs.

        Args:
            vectors: collaborative vectors [m, d] of these items.
            known_vectors: of all items of the data set that the model was trained on [N, d].
            known: which of them were in training [N].
        """
        own = self.weight[: len(known)].cpu()[known]  # [n, d]
        inputs = _with_one(known_vectors[known]).double()  # [n, d + 1]
        # gelsd: columns beyond the rank of the vectors are zero, which the default on GPUs does not bear
        solution = torch.linalg.lstsq(inputs, own.double(), driver="gelsd").solution.float()
        return F.normalize(_with_one(vectors) @ solution, dim=-1) * own.norm(dim=-1).mean()


def kept_columns(config: Any, size: int) -> range:
    """The columns of trained item vectors of width ``size`` that stay what the texts say.

    With two sources side by side, texts and interactions have directions of their own. Where training turns both, every
    step of Adam moves an item that nobody takes as far as a popular one, and soon nothing is left of its text.
    AlphaFuse (Hu et al., SIGIR 2025, https://arxiv.org/abs/2504.19218) therefore keeps the directions in which texts
    differ, and learns ids in the others.

    Raises:
        ValueError: there are no such columns, or no others.
    """
    if config["train_text_columns"]:
        return range(0)
    found = text_columns(config["item_vectors"], size)
    if len(found) in (0, size) or not config["train_item_vectors"]:
        raise ValueError(
            "train_text_columns=False keeps the text columns of item vectors whose others are trained: set "
            "item_vectors=svd+text, and leave train_item_vectors True"
        )
    return found


def check_lazy(config: Any) -> None:
    """Stop where the gradient of the item vectors would not be sparse, or nothing could update it.

    Raises:
        ValueError: names the settings.
    """
    if not config["lazy_adam"]:
        return
    if config["learner"] not in LAZY_LEARNERS:
        raise ValueError(f"lazy_adam=True: set learner to one of {', '.join(LAZY_LEARNERS)}, not {config['learner']}")
    if not config["train_item_vectors"]:
        raise ValueError("lazy_adam=True updates item vectors, and train_item_vectors=False leaves them as they are")
    if config["shard_backbone"]:
        raise ValueError("lazy_adam=True does not work with shard_backbone=True: leave one of them at False")
    if not config["ranking_negatives"] or config["ranking_weight"] == 0:
        raise ValueError(
            "lazy_adam=True updates the item vectors that a step draws, and a ranking loss over all items touches each "
            "of them: set ranking_negatives as well"
        )


def keep(weight: Tensor, columns: range) -> None:
    """Give some columns of a table [N, d] no gradient: an optimizer without decay leaves them as they are."""
    if columns:
        trained = torch.ones(weight.shape[1])
        trained[list(columns)] = 0
        weight.register_hook(lambda gradient: _times(gradient, trained))


def _times(gradient: Tensor, columns: Tensor) -> Tensor:
    """A gradient [N, d], which may be sparse in its rows, times numbers [d]."""
    if not gradient.is_sparse:
        return gradient * columns.to(gradient)
    values = gradient._values()
    return torch.sparse_coo_tensor(
        gradient._indices(), values * columns.to(values), gradient.shape, check_invariants=False
    )


@torch.no_grad()
def start(weight: Tensor, vectors: Tensor, settings: ItemVectorSettings, rms: float) -> None:
    """Write vectors [N, d] into a table of learned ones, as far as the settings want that.

    Args:
        vectors: with about unit variance a coordinate.
        rms: of a coordinate after it.
    """
    if settings.start_at_vectors:
        weight.copy_(vectors)
        weight.mul_(rms)
    if kept := list(settings.kept):
        weight[:, kept] = vectors[:, kept].to(weight) * (KEPT_GROWTH * rms)


@torch.no_grad()
def lengthen(table: nn.Embedding, count: int) -> None:
    """Add rows of zeros to a table."""
    rows = table.weight.new_zeros(count, table.embedding_dim)
    table.weight = nn.Parameter(torch.cat([table.weight, rows]), requires_grad=table.weight.requires_grad)
    table.num_embeddings += count


def rms_of_rows(vectors: Tensor) -> Tensor:
    """Root mean square of the coordinates of the rows [N, d] that are not zero, a scalar."""
    squares = vectors.square().sum(1)  # [N]
    return (squares.sum() / (vectors.shape[1] * (squares > 0).sum())).sqrt()


def _with_one(vectors: Tensor) -> Tensor:
    return torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)
