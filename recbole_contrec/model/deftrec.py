r"""
recbole_contrec.model.deftrec
#############################

Reference:
    Haohao Qu et al. "Generative Recommendation with Continuous-Token Diffusion." arXiv 2504.12007v1, 2025 (DeftRec).
    https://arxiv.org/abs/2504.12007v1

    Shuo Liu et al. "Preference Diffusion for Recommendation." in ICLR 2025 (PreferDiff: the form of the contrast).
    https://arxiv.org/abs/2410.13117
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_contrec.backbone import Layout
from recbole_contrec.diffusion import Contrast
from recbole_contrec.model.base.windowed import Targets
from recbole_contrec.model.contrec import ContRec
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
        the states after the items read so far and nothing of what follows. ``condition: last`` takes the last of them,
        which ranks better (``DeftRec.yaml`` says by how much).
        "Additive": the K tokens of an item are added up in its position of the prompt, and the tokenizer's decoder
        reads their mean, which differs by the factor K that its first layer absorbs.
        ``properties/model/DeftRec.yaml`` has the settings that rank best, ``DeftRec-paper.yaml`` the recipe as far as
        it is known.

    Axes: those of ContRec; R negatives.
    """

    def __init__(self, config, dataset):
        if config["objective"] == "regression" and config["negative_noise"] != "same":
            raise ValueError(
                f"objective=regression draws no noise: leave negative_noise at same, not {config['negative_noise']}"
            )
        super().__init__(config, dataset)
        self.negatives = None
        if config["contrastive_weight"]:
            self.negatives = NegativeSampler(
                *dataset.histories.pairs(), self.n_users, self.n_items, config["negative_source"]
            )

    def _new_head(self):
        config = self.config
        contrast = Contrast(
            config["contrastive_loss"],
            config["contrastive_scale"],
            config["contrastive_margin"],
            config["negative_noise"] == "same",
        )
        return super()._new_head(contrast=contrast)

    # RecBole's methods; the others are ContRec's

    def calculate_loss(self, interaction) -> DeftRecLoss:
        """Mean loss over the targets of a batch: every position of a window, or the last one of RecBole's own rows."""
        weights = self.config
        targets, language = self._targets_and_language(interaction)
        regression = contrastive = dispersive = targets.states.new_zeros(())
        vectors = self._unit_scale(self.item_vectors(targets.items))  # [n, d]
        if weights["contrastive_weight"]:
            negatives = self._negatives(interaction[self.USER_ID], targets)  # [n, R or 1, d]
            regression, contrastive, dispersive = self.head.contrastive_loss(targets.states, vectors, negatives)
        elif weights["regression_weight"] or weights["dispersive_weight"]:
            regression, dispersive = self.head.loss(targets.states, vectors)
        return DeftRecLoss(
            self._ranking(targets),
            weights["regression_weight"] * regression,
            weights["contrastive_weight"] * contrastive,
            weights["dispersive_weight"] * dispersive,
            language,
        )

    # condition and negatives

    def _conditions(self, states: Tensor) -> Tensor:
        """From the states after every item to the conditions there, [B, L, D] -> [B, L, D].

        Normalised to length sqrt(D), about unit size a coordinate: what the head's layers are initialised for.
        """
        if self.config["condition_pooling"] == "mean":
            count = torch.arange(1, states.shape[1] + 1, device=states.device)[:, None]  # [L, 1]
            states = states.cumsum(1) / count  # [B, L, D]
        return F.normalize(states, dim=-1) * states.shape[-1] ** 0.5

    def _answer_conditions(self, states: Tensor) -> Tensor:
        """The mean over an answer, normalised: [..., D] -> [..., D]."""
        return F.normalize(states, dim=-1) * states.shape[-1] ** 0.5

    def _asked(self, prompt: Layout, length: Tensor) -> tuple[Tensor, Tensor]:
        """The positions whose states make the condition after the last item [b, Q], and which of them is its own [b]."""
        if self.config["condition_pooling"] == "mean":
            return prompt.ends, length - 1
        return super()._asked(prompt, length)

    @torch.no_grad()
    def _negatives(self, users: Tensor, targets: Targets) -> Tensor:
        """Vectors of negatives for every target, [n, R, d], or their mean [n, 1, d]; users [B].

        The mean is not brought back to unit scale, as in the paper: with many negatives it lies near the mean
        of the catalogue.
        """
        numbers = self.negatives(users[targets.row], self.config["negatives_per_target"], targets.items)  # [n, R]
        vectors = self._unit_scale(self.item_vectors(numbers))  # [n, R, d]
        return vectors.mean(1, keepdim=True) if self.config["negative_vector"] == "mean" else vectors
