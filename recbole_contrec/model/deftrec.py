r"""
recbole_contrec.model.deftrec
#############################

Reference:
    Haohao Qu et al. "Generative Recommendation with Continuous-Token Diffusion." arXiv 2504.12007v1, 2025 (DeftRec).
    https://arxiv.org/abs/2504.12007v1

    Shuo Liu et al. "Preference Diffusion for Recommendation." in ICLR 2025 (PreferDiff: the form of the contrast).
    https://arxiv.org/abs/2410.13117
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_contrec.backbone import Layout
from recbole_contrec.diffusion import Contrast
from recbole_contrec.model.contrec import ContRec
from recbole_contrec.model.parts.history import LastState
from recbole_contrec.model.parts.targets import Targets
from recbole_contrec.negatives import NegativeSampler


class DeftRecLoss(NamedTuple):
    """Weighted terms; the trainer minimises their sum and logs each by its name."""

    ranking: Tensor
    regression: Tensor
    contrastive: Tensor
    dispersive: Tensor
    language: Tensor


class DeftRec(ContRec):
    r"""DeftRec denoises the next preference and tells it from items that the user has not interacted with.

    The first version of ContRec, with its prompt, language model, item vectors and retrieval. Three things differ:
    tokens are masked and additive K-way without noise; the condition of the diffusion head is the mean of the language
    model's output positions, normalised; and the head learns from negatives as well, whose vectors pass through it
    at the same noise level and under the same condition.

    NOTE:
        All positions train in one pass, so the mean of the output positions is a running one: before a target it holds
        the states after the items read so far and nothing of what follows. ``condition_pooling: last`` takes the last
        of them, which ranks better (``DeftRec.yaml`` says by how much).
        "Additive": the K tokens of an item are added up in its position of the prompt, and the tokenizer's decoder
        reads their mean, which differs by the factor K that its first layer absorbs.
        ``properties/model/DeftRec.yaml`` has the settings that rank best, ``DeftRec-paper.yaml`` the recipe as far as
        it is known.

    Axes: those of ContRec; R negatives.

    Raises:
        ValueError: settings that do not go together.
        UserError: as ContRec.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)

        # load parameters info
        self.contrastive_weight = config["contrastive_weight"]
        self.negatives_per_target = config["negatives_per_target"]
        self.mean_negative = config["negative_vector"] == "mean"

        # condition, contrast and negatives; the other parts are ContRec's
        self.history.condition = NormalisedState(mean=config["condition_pooling"] == "mean")
        self.head.contrast = Contrast(
            config["contrastive_loss"],
            config["contrastive_scale"],
            config["contrastive_margin"],
            config["negative_noise"] == "same",
        )
        self.negatives: NegativeSampler | None = None
        if self.contrastive_weight:
            users, items = dataset.histories.pairs()
            self.negatives = NegativeSampler(users, items, self.n_users, self.n_items, config["negative_source"])

    @staticmethod
    def check_settings(config: Any) -> None:
        """Stop where settings contradict each other.

        Raises:
            ValueError: names them.
        """
        if config["objective"] == "regression" and config["negative_noise"] != "same":
            raise ValueError(
                f"objective=regression draws no noise: leave negative_noise at same, not {config['negative_noise']}"
            )
        ContRec.check_settings(config)

    # RecBole's methods; the others are ContRec's

    def calculate_loss(self, interaction: Interaction) -> DeftRecLoss:  # type: ignore[override] # a term more
        """Mean loss over the targets of a batch: every position of a window, or the last one of RecBole's own rows."""
        targets, language = self.targets(interaction)  # states [n, D]
        regression = contrastive = dispersive = targets.states.new_zeros(())
        vectors = self.at_unit_scale(self.item_vectors(targets.items))  # [n, d]
        if self.negatives is not None:
            negatives = self.negative_vectors(interaction[self.USER_ID], targets)  # [n, R or 1, d]
            regression, contrastive, dispersive = self.head.contrastive_loss(targets.states, vectors, negatives)
        elif self.regression_weight or self.dispersive_weight:
            regression, dispersive = self.head.loss(targets.states, vectors)
        return DeftRecLoss(
            self.ranking_loss(targets),
            self.regression_weight * regression,
            self.contrastive_weight * contrastive,
            self.dispersive_weight * dispersive,
            language,
        )

    # the steps of these

    @torch.no_grad()
    def negative_vectors(self, users: Tensor, targets: Targets) -> Tensor:
        """Vectors of negatives for every target, [n, R, d], or their mean [n, 1, d]; users [B].

        The mean is not brought back to unit scale, as in the paper: with many negatives it lies near the mean
        of the catalogue.
        """
        assert self.negatives is not None
        numbers = self.negatives(users[targets.row], self.negatives_per_target, targets.items)  # [n, R]
        vectors = self.at_unit_scale(self.item_vectors(numbers))  # [n, R, d]
        return vectors.mean(1, keepdim=True) if self.mean_negative else vectors


class NormalisedState(LastState):
    """The condition of DeftRec: states normalised to length sqrt(D), about unit size a coordinate, which is what the
    layers of the head are initialised for.

    Args:
        mean: whether the mean of the states after all items so far is taken, instead of the last one.
    """

    def __init__(self, mean: bool):
        self.mean = mean

    def after_items(self, states: Tensor) -> Tensor:
        if self.mean:
            count = torch.arange(1, states.shape[1] + 1, device=states.device)[:, None]  # [L, 1]
            states = states.cumsum(1) / count  # [B, L, D]
        return self.after_answers(states)

    def after_answers(self, states: Tensor) -> Tensor:
        return F.normalize(states, dim=-1) * states.shape[-1] ** 0.5

    def positions(self, prompt: Layout, length: Tensor) -> tuple[Tensor, Tensor]:
        if self.mean:
            return prompt.ends, length - 1
        return super().positions(prompt, length)
