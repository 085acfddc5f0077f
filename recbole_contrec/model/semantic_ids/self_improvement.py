r"""
recbole_contrec.model.semantic_ids.self_improvement
###################################################

Reference:
    Runjin Chen et al. "Enhancing Item Tokenization for Generative Recommendation through Self-Improvement."
    https://arxiv.org/abs/2412.17171
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from recbole_contrec.errors import UserError
from recbole_contrec.interface import Refined
from recbole_contrec.model.parts.targets import TrainingWindows
from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder
from recbole_contrec.model.semantic_ids.requantising import requantised, states_before_items
from recbole_contrec.model.semantic_ids.rewriting import Described, Written, rewritten
from recbole_contrec.model.semantic_ids.self_improvement_settings import SelfImprovementSettings
from recbole_contrec.tokenizer import identifier_report


class SemanticIdModel(Protocol):
    """What self-improvement asks of the model that holds it."""

    decoder: CodeDecoder
    whole_windows: TrainingWindows  # that take every target of a batch, also where training draws some

    def quantise(self, vectors: Tensor) -> Tensor:
        """All codes but the last [N, K - 1] for vectors [N, D], the number C for rows of zeros."""


class SelfImprovement(nn.Module):
    """What a model that generates semantic ids holds to improve them: items and semantic ids are aligned in training,
    and at times all semantic ids are made anew from what the model has learned.

    An item is described by its words (:class:`~.descriptions.DescribedByWords`), as in the paper, or by one vector of
    its interactions or its texts (:class:`~.descriptions.DescribedByVectors`): the two heirs of this class. Alignment
    teaches the language model to write a semantic id behind a description, and to tell the description from a semantic
    id. A refinement makes the semantic ids of all items anew, in one of two ways (``refine_from``):

    - ``descriptions``, the paper's (:mod:`.rewriting`): the model writes several semantic ids behind the description of
      every item, and they are handed out so that all are distinct and none is less likely than the one before.
    - ``histories`` (:mod:`.requantising`): the states in front of each item in training histories, their mean, are
      quantised, so items that follow the same histories share codes.

    NOTE:
        The paper leaves open how often, with which weights and how collisions are avoided; what is chosen here are
        settings. Its alignment is a stage that returns at times; here it is a term of the loss in every step.
        Quantising anew is ours.

    Axes: N items, K codes, D width of the language model, m items of a batch, P positions of a description.

    Args:
        settings: :class:`~recbole_contrec.model.semantic_ids.self_improvement_settings.SelfImprovementSettings`.
    """

    marks: Tensor  # [2, D]    begin a prompt: write codes, tell a description

    def __init__(self, settings: SelfImprovementSettings):
        super().__init__()
        self.settings = settings
        self._described: Tensor | None = None

    # what an heir knows of descriptions

    def has_description(self) -> Tensor:
        """Which items have a description [N] bool."""
        raise NotImplementedError

    def prompts(self, items: Tensor, decoder: CodeDecoder) -> Written:
        """What a semantic id is written behind, for items [m]."""
        raise NotImplementedError

    def telling_loss(self, items: Tensor, read: Tensor, decoder: CodeDecoder) -> Tensor:
        """How badly the model tells the descriptions of items [m] behind what is read of their codes [m, K, D]."""
        raise NotImplementedError

    # alignment

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices."""
        return {"marks"}

    @property
    def aligns(self) -> bool:
        """Whether its losses are part of training."""
        return self.settings.alignment_weight > 0

    def losses(self, decoder: CodeDecoder) -> tuple[Tensor, Tensor]:
        """Two losses, before their weight, of some items drawn at random: the cross entropy of their codes behind their
        descriptions, and that of the description behind the codes."""
        items = self.described_items(decoder)
        drawn = items[torch.randint(len(items), (self.settings.alignment_items,), device=items.device)]  # [m]
        codes = decoder.item_codes.codes[drawn]
        prompts = self.prompts(drawn, decoder)
        states = decoder.states_before_codes(prompts.vectors, codes, prompts.length)  # [m, K, D]
        return decoder.loss(states, codes), self.telling_loss(drawn, decoder.read(codes), decoder)

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
            undescribed = table.known & ~self.has_description()
            refined = rewritten(
                decoder, Described(items, undescribed, lambda part: self.prompts(part, decoder)), settings
            )
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
        """Items with codes and a description [n]; refinements leave them the same.

        Raises:
            UserError: there are none.
        """
        if self._described is None:
            described = (decoder.item_codes.known & self.has_description()).nonzero().squeeze(1)
            if not len(described):
                raise UserError("self_improve: no item with codes has a description (item_descriptions)")
            self._described = described
        return self._described


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
