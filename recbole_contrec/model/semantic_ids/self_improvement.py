r"""
recbole_contrec.model.semantic_ids.self_improvement
###################################################

Reference:
    Runjin Chen et al. "Enhancing Item Tokenization for Generative Recommendation through Self-Improvement."
    https://arxiv.org/abs/2412.17171
"""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.interface import Refined
from recbole_contrec.model.parts.targets import TrainingWindows
from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder
from recbole_contrec.model.semantic_ids.requantising import requantised, states_before_items
from recbole_contrec.model.semantic_ids.rewriting import Described, rewritten
from recbole_contrec.model.semantic_ids.self_improvement_settings import SelfImprovementSettings
from recbole_contrec.tokenizer import identifier_report, seen_rows


class SemanticIdModel(Protocol):
    """What self-improvement asks of the model that holds it."""

    decoder: CodeDecoder
    whole_windows: TrainingWindows  # that take every target of a batch, also where training draws some

    def quantise(self, vectors: Tensor) -> Tensor:
        """All codes but the last [N, K - 1] for vectors [N, D], the number C for rows of zeros."""


class SelfImprovement(nn.Module):
    """What a model that generates semantic ids holds to improve them: items and semantic ids are aligned in training,
    and at times all semantic ids are made anew from what the model has learned.

    An item is described by one vector, of its interactions or its texts. Alignment teaches the language model to write
    a semantic id behind a description, and to tell the description from a semantic id. A refinement makes the semantic
    ids of all items anew, in one of two ways (``refine_from``):

    - ``histories`` (:mod:`.requantising`): the states in front of each item in training histories, their mean, are
      quantised, so items that follow the same histories share codes.
    - ``descriptions``, the paper's (:mod:`.rewriting`): the model writes several semantic ids behind the description of
      every item, and they are handed out so that all are distinct and none is less likely than the one before.

    NOTE:
        The paper leaves open how often, with which weights and how collisions are avoided; what is chosen here are
        settings. It describes items by their words, here any vector serves (``item_descriptions: text`` is nearest to
        it). Its alignment is a stage that returns at times; here it is a term of the loss in every step. Quantising
        anew is ours: semantic ids written one item at a time rank no better than those before them.

    Axes: N items, K codes, D width of the language model, d width of a description, m items of a batch.

    Args:
        n_items: N.
        size: d.
        hidden_size: D.
        settings: :class:`~recbole_contrec.model.semantic_ids.self_improvement_settings.SelfImprovementSettings`.
    """

    descriptions: Tensor  # [N, d]    of about unit variance

    def __init__(self, n_items: int, size: int, hidden_size: int, settings: SelfImprovementSettings):
        super().__init__()
        self.settings = settings
        self.register_buffer("descriptions", torch.zeros(n_items, size))
        self.to_prompt = nn.Linear(size, hidden_size)
        self.to_description = nn.Linear(hidden_size, size)
        self.marks = nn.Parameter(0.1 * torch.randn(2, hidden_size))  # begin a prompt: write codes, tell a description
        self.requires_grad_(settings.alignment_weight > 0)  # its losses alone train it
        self._described: Tensor | None = None

    @classmethod
    def from_config(cls, config: Any, n_items: int, num_codebooks: int) -> "SelfImprovement | None":
        """None where the settings leave semantic ids as they are.

        Args:
            n_items: N.
            num_codebooks: K.

        Raises:
            ValueError: settings that would be ignored, or never refine anything.
        """
        settings = SelfImprovementSettings.from_config(config, num_codebooks)
        return None if settings is None else cls(n_items, config["vector_size"], config["hidden_size"], settings)

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices."""
        return {"marks"}

    @property
    def aligns(self) -> bool:
        """Whether its losses are part of training."""
        return self.settings.alignment_weight > 0

    def describe(self, vectors: Tensor) -> None:
        """Take vectors [N, d] as descriptions."""
        self.descriptions.copy_(vectors)
        self._described = None

    def losses(self, decoder: CodeDecoder) -> tuple[Tensor, Tensor]:
        """Two losses, before their weight, of some items drawn at random: the cross entropy of their codes behind their
        descriptions, and one minus the cosine of the descriptions that the model tells from the codes."""
        items = self.described_items(decoder)
        drawn = items[torch.randint(len(items), (self.settings.alignment_items,), device=items.device)]  # [m]
        codes = decoder.item_codes.codes[drawn]
        states = decoder.states_before_codes(self.prompts(drawn), codes)  # [m, K, D]
        mark = self.marks[1].expand(len(drawn), 1, -1)
        told = self.to_description(decoder.state_behind(torch.cat([mark, decoder.item_codes.read(codes)], dim=1)))
        return decoder.loss(states, codes), 1 - F.cosine_similarity(told, self.descriptions[drawn]).mean()

    def weighted_losses(self, decoder: CodeDecoder) -> tuple[Tensor, Tensor]:
        """The same times ``alignment_weight``."""
        alignment, description = self.losses(decoder)
        return self.settings.alignment_weight * alignment, self.settings.alignment_weight * description

    @torch.no_grad()
    def refine(self, model: SemanticIdModel, batches: Iterable) -> Refined:
        """New semantic ids in place of those of ``model``, which stays as it is.

        With ``refinement: random``, the control, the same items move, and to the same semantic ids, but who gets which
        is drawn.

        Args:
            batches: of training, for ``refine_from: histories``.
        """
        decoder, settings = model.decoder, self.settings
        table = decoder.item_codes
        if settings.refine_from == "histories":
            expected = states_before_items(decoder, map(model.whole_windows, batches))
            refined = requantised(table, expected, model.quantise, settings.whitening)
        else:
            items = self.described_items(decoder)
            undescribed = table.known & ~seen_rows(self.descriptions)
            refined = rewritten(decoder, Described(items, undescribed, self.prompts), settings)
        codes = _shuffled(refined.codes, table.codes) if settings.refinement == "random" else refined.codes
        changed = (codes != table.codes)[table.known]
        report = {
            "share_changed": round(float(changed.any(1).double().mean()), 4),
            "share_of_codes_changed": [round(float(share), 4) for share in changed.double().mean(0)],
            **refined.report,
            **identifier_report(codes, table.unknown_code),
        }
        return refined._replace(codes=codes, report=report)

    def described_items(self, decoder: CodeDecoder) -> Tensor:
        """Items with codes and a description [n]; refinements leave them the same."""
        if self._described is None:
            self._described = (decoder.item_codes.known & seen_rows(self.descriptions)).nonzero().squeeze(1)
        return self._described

    def prompts(self, items: Tensor) -> Tensor:
        """What a semantic id is written behind, for items [m]: [m, 2, D]."""
        mark = self.marks[0].expand(len(items), -1)
        return torch.stack([mark, self.to_prompt(self.descriptions[items])], dim=1)


def _shuffled(new: Tensor, own: Tensor) -> Tensor:
    """New semantic ids [N, K] dealt out at random among the items that move; as they were for the others.

    A semantic id may be what another item gives up, so a draw can hand an item its own; such a draw does not count.
    There is always one that does, the order given.
    """
    moved = (new != own).any(1).nonzero().squeeze(1)
    while True:
        drawn = new[moved[torch.randperm(len(moved), device=moved.device)]]
        if (drawn != own[moved]).any(1).all():
            return new.index_copy(0, moved, drawn)
