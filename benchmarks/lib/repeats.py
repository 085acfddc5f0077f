"""
benchmarks.lib.repeats
######################
The repeat bias for trained models of RecBole. Ours learn it with their weights; here it is fitted afterwards, on
training data alone.

The bias b is added to the scores s of the items H of the history that a model reads. A softmax over the catalogue then
says that the next item stands in H with probability sigmoid(b + d), where

    d = log sum of exp(s) over H  -  log sum of exp(s) over all other items.

Nothing else in the likelihood of a target depends on b. Its maximum is that of a logistic regression with an intercept
alone, where the expected share of repeats is the share that is there.
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch import Tensor, nn

from recbole_contrec.errors import UserError

TARGETS = 4096  # of training, drawn by the seed of the run
BATCH = 256


class RepeatBias(NamedTuple):
    """A fitted bias and what it was fitted to.

    Attributes:
        value: the number that is added.
        targets: training targets whose scores were looked at.
        repeats: share of all training targets that stand in the history that the model reads.
        expected_without: the share that the model itself expects, mean over ``targets``.
    """

    value: float
    targets: int
    repeats: float
    expected_without: float


class WithRepeatBias(nn.Module):
    """A trained sequential model of RecBole with a number added to the scores of the items that it reads, once each."""

    def __init__(self, model: SequentialRecommender, bias: float):
        super().__init__()
        self.model, self.bias = model, bias

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items [B, N], item 0 is the padding."""
        scores, seen = scores_and_seen(self.model, interaction)
        return scores + self.bias * seen


def takes_repeat_bias(model: str, properties: Any = None) -> bool:
    """Whether a model has no repeat bias of its own and scores the whole catalogue: RecBole's sequential ones, and
    presets of these, but for RepeatNet, whose scores are probabilities of repeating and of exploring, and for models
    that score one item at a time.

    Raises:
        UserError: an unknown model.
    """
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model

    entry = find_model(model, properties_folders(properties))
    return (
        entry.is_recbole
        and issubclass(entry.model_class, SequentialRecommender)
        and entry.recbole_name != "RepeatNet"
        and entry.model_class.full_sort_predict is not AbstractRecommender.full_sort_predict
    )


@torch.no_grad()
def fit(model: SequentialRecommender, training: Any, seed: int, targets: int = TARGETS) -> RepeatBias:
    """The repeat bias of greatest likelihood.

    Args:
        model: trained.
        training: RecBole's training data set; a row is a history and its next item.
        seed: draws ``targets`` of its rows.

    Raises:
        UserError: no history that was drawn leaves an item out.
    """
    rows = training.inter_feat
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:targets])
    model.eval()
    found = [
        log_odds(*scores_and_seen(model, batch.to(model.device))) for batch in _batches(rows[torch.from_numpy(chosen)])
    ]
    offsets = np.concatenate(found)
    offsets = offsets[np.isfinite(offsets)]  # to a history of the whole catalogue the bias means nothing
    if not len(offsets):
        raise UserError(
            f"the repeat bias cannot be fitted: each of {len(chosen):,} training histories holds the whole catalogue, "
            "so that every next item repeats; leave out --repeat-bias"
        )
    repeated = sum(int(_repeats(model, batch).sum()) for batch in _batches(rows))
    return RepeatBias(
        value=solve(offsets, (repeated + 1) / (len(rows) + 2)),  # strictly between 0 and 1, as our models start
        targets=len(offsets),
        repeats=repeated / len(rows),
        expected_without=float(expit(offsets).mean()),
    )


def solve(offsets: np.ndarray, share: float) -> float:
    """The b for which the mean of sigmoid(b + offsets) is ``share``, which is strictly between 0 and 1.

    Args:
        offsets: log odds of a repeat without the bias [n].
    """
    low, high = logit(share) - offsets.max() - 1, logit(share) - offsets.min() + 1
    return float(brentq(lambda bias: expit(bias + offsets).mean() - share, low, high, xtol=1e-9))


def scores_and_seen(model: SequentialRecommender, interaction: Interaction) -> tuple[Tensor, Tensor]:
    """Scores of all items [B, N], and which of them stand in the history that the model reads [B, N]."""
    scores = model.full_sort_predict(interaction).view(len(interaction), -1)
    seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, interaction[model.ITEM_SEQ].to(scores.device), True)
    seen[:, 0] = False
    return scores, seen


def log_odds(scores: Tensor, seen: Tensor) -> np.ndarray:
    """Log odds [B] that a softmax over the items, but for the padding, gives to one of those that were seen."""
    scores, others = scores.double(), ~seen
    others[:, 0] = False
    inside, outside = (scores.masked_fill(~part, -torch.inf).logsumexp(1) for part in (seen, others))
    return (inside - outside).cpu().numpy()


def result_with_bias(result: dict, loaded: Any, masked: Any, folder: Path) -> dict:
    """What a finished run says, as it is with the bias: validation and test anew, all else from the one training.

    Args:
        result: of the run.
        loaded: the trained run; its trainer evaluates with the bias from here on.
        masked: the same where seen items are masked.
        folder: where the ranks of the test items are written.
    """
    fitted = fit(loaded.model, loaded.data.train_dataset, loaded.config["seed"])
    for run in (loaded, masked):
        run.trainer.model = WithRepeatBias(run.model, fitted.value)
    loaded.trainer.folder = folder
    valid, test, without_seen = (
        {name: float(value) for name, value in run.trainer.evaluate(part, load_best_model=False, **options).items()}
        for run, part, options in (
            (loaded, loaded.data.valid, {}),
            (loaded, loaded.data.test, {"save_ranks": True}),
            (masked, masked.data.test, {}),
        )
    )
    content = deepcopy(result)
    content["card"]["test_users_per_second"] = round(loaded.trainer.evaluation_speed, 1)
    return {
        **content,
        "best_valid_score": valid[loaded.config["valid_metric"].lower()],
        "best_valid_result": valid,
        "test_result": test,
        "test_result_seen_masked": without_seen,
        "repeat_bias": {**fitted._asdict(), "on_validation": _check(loaded, fitted.value)},
    }


@torch.no_grad()
def _check(loaded: Any, bias: float) -> dict[str, float]:
    """Share of repeats among the validation targets, and the one expected with the bias. Nothing is chosen by it: it
    tells whether scores of training targets, which the model has learned, are like those of others."""
    rows, model = loaded.data.valid.dataset.inter_feat, loaded.model
    offsets = [log_odds(*scores_and_seen(model, batch.to(model.device))) for batch in _batches(rows)]
    repeated = sum(int(_repeats(model, batch).sum()) for batch in _batches(rows))
    return {"repeats": repeated / len(rows), "expected": float(expit(np.concatenate(offsets) + bias).mean())}


def _repeats(model: SequentialRecommender, rows: Interaction) -> Tensor:
    """Whether the target of each row stands in its history [B]."""
    return (rows[model.ITEM_SEQ] == rows[model.POS_ITEM_ID][:, None]).any(1)


def _batches(rows: Interaction) -> Iterator[Interaction]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
