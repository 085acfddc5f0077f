"""
recbole_contrec.training.evaluation
###################################
RecBole's evaluation under one rule for seen items, and the rank of every target.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import EvaluatorType, ModelType
from torch import nn

from recbole_contrec import processes
from recbole_contrec.data.interactions import ByUser
from recbole_contrec.data.windows import SEEN_ITEMS
from recbole_contrec.interface import GeneratesSemanticIds, RanksInBoundedMemory
from recbole_contrec.sharding import Shards
from recbole_contrec.training.metrics import places
from recbole_contrec.training.shares import own_users

logger = logging.getLogger("recbole_contrec")

RANKS = "test_ranks.npz"
TOP = 10  # items of every ranking that are kept beside the rank of its target
SEEN_COUNT = "seen before the target"  # column of rows


# A mixin: its types are checked as if it stood on RecBole's trainer, whose attributes it uses.
if TYPE_CHECKING:
    from recbole.trainer import Trainer as _Host
else:
    _Host = object


class FullRanking(_Host):
    """Mixin over a RecBole trainer: ``mask_seen``, evaluation speed, and ranks for paired tests.

    The host class sets ``folder`` (where ranks are written) and calls :meth:`bind_seen`.
    """

    def __init__(self, config: Any, model: nn.Module):
        super().__init__(config, model)
        self.evaluation_speed = math.nan  # users a second in the last evaluation
        self.valid_data: Any = None  # what tells validation from test
        # where `mask_seen` asks for it: phase -> users x items, or, where users have several targets, whole histories
        self._seen: dict[str, sp.csr_matrix] = {}
        self._seen_now: sp.csr_matrix | None = None
        self._whole: ByUser | None = None
        self._ranks: list[tuple[np.ndarray, ...]] | None = None
        self.shards: Shards | None = None  # of a language model that is in parts over the processes
        self._users = 0  # in the batches of this evaluation so far
        # whether the model's ranking gives what its scores of single items are; found out when it matters
        self._scores_all_alike: bool | None = None

    def bind_seen(self, data: Any) -> None:
        """Remember what everybody has seen before validation and before the test, for ``mask_seen=True``, and for
        metrics of popularity and coverage how often each item occurs in training."""
        self.valid_data = data.valid
        # not data.train: a loader of graphs has its data set under another name
        self.eval_collector.data_collect(SimpleNamespace(dataset=data.train_dataset))
        if self.config["mask_seen"] and data.dataset.held_out and self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            self._whole = data.dataset.all_interactions.by_user()
            count_seen(data, self._whole)
        elif self.config["mask_seen"]:
            train = data.train_dataset.inter_matrix(form="csr")
            rows = data.valid.dataset.inter_feat
            users, items = (rows[field].numpy() for field in (data.dataset.uid_field, data.dataset.iid_field))
            valid = sp.csr_matrix((np.ones(len(users)), (users, items)), shape=train.shape)
            self._seen = {"valid": train, "test": train + valid}

    def _rank_all(
        self, eval_data: Any, show_progress: bool, save_ranks: bool, base_evaluate: Callable[..., Any]
    ) -> Any:
        """Evaluate through RecBole, and write ``test_ranks.npz`` where it is asked for.

        Args:
            base_evaluate: RecBole's ``evaluate``, which calls :meth:`_full_sort_batch_eval` for every batch.
        """
        self._seen_now = self._seen.get("valid" if eval_data is self.valid_data else "test")
        self._ranks = [] if save_ranks and isinstance(eval_data, FullSortEvalDataLoader) else None
        self._users = 0
        start = perf_counter()
        result = base_evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        result = type(result)((name, float(value)) for name, value in result.items())  # GAUC comes in single precision
        self.evaluation_speed = eval_data.sample_size / (perf_counter() - start)
        if self._ranks is not None:
            self._write_ranks(eval_data.dataset)
        return result

    def _own_users(self, batch: tuple) -> tuple:
        """The part of a batch that is evaluated in this process; the collector is told whom it is about."""
        if processes.size() == 1:
            return batch
        part, own = own_users(batch, self.config["ITEM_LIST_LENGTH_FIELD"])
        self.eval_collector.users.append(own.numpy() + self._users)
        self._users += int(batch[2].max()) + 1
        return part

    def _full_sort_batch_eval(self, batched_data):
        """Scores of a batch [B, N] as RecBole computes them, with seen items at -inf by the rule of the run."""
        batched_data = self._own_users(batched_data)
        interaction, history, positive_u, positive_i = batched_data
        if self.config["mask_seen"] is False:
            history = None
        elif self._seen_now is not None or self._whole is not None:
            history = self._seen_by(interaction, positive_u, positive_i)
            if isinstance(self.model, GeneratesSemanticIds):  # what is masked anyhow must not hold places of its beam
                seen = side_by_side(*history, len(interaction))
                interaction = Interaction({**interaction.interaction, SEEN_ITEMS: seen})
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(
            (interaction, history, positive_u, positive_i)
        )
        self._catch_up()
        scores = no_score_is_the_worst(scores, self.config["model"])
        if self._ranks is not None:
            self._collect_ranks(interaction, scores, positive_u, positive_i)
        return interaction, scores, positive_u, positive_i

    def _neg_sample_batch_eval(self, batched_data):
        """RecBole's evaluation of sampled items, with every history read once in place of once for each of its
        items."""
        found = self._scored_samples(batched_data)
        self._catch_up()
        return found

    def _catch_up(self) -> None:
        """With the other processes, whose users may take more passes of a language model in parts."""
        if self.shards is not None:
            self.shards.catch_up()

    def _scored_samples(self, batched_data):
        batched_data = self._own_users(batched_data)
        interaction, row_idx, positive_u, positive_i = batched_data
        ours = isinstance(self.model, RanksInBoundedMemory)
        if row_idx is None or self.config["MODEL_TYPE"] != ModelType.SEQUENTIAL or ours:
            return super()._neg_sample_batch_eval(batched_data)
        first, history = first_rows(row_idx, positive_u)
        if self._scores_all_alike is None:
            self._scores_all_alike = self._compare_scores(interaction, row_idx, first, history)
        if not self._scores_all_alike:
            return super()._neg_sample_batch_eval(batched_data)
        items = interaction[self.config["ITEM_ID_FIELD"]].to(self.device)
        found = self._scores_of_all(interaction[first])[history.to(self.device), items]
        if self.config["eval_type"] == EvaluatorType.VALUE:
            return interaction, found, positive_u, positive_i
        scores = torch.full((int(positive_u[-1]) + 1, self.tot_item_num), -torch.inf, device=self.device)
        scores[row_idx, items] = found
        return interaction, scores, positive_u, positive_i

    def _scores_of_all(self, rows: "Interaction") -> torch.Tensor:
        return self.model.full_sort_predict(rows.to(self.device)).view(len(rows), -1)

    def _compare_scores(
        self, interaction: "Interaction", row_idx: torch.Tensor, first: torch.Tensor, history: Any
    ) -> bool:
        """Whether both ways score the items of the first user alike; some models of RecBole have one of them only."""
        some = torch.arange(int((row_idx == row_idx[0]).sum()))
        with torch.random.fork_rng():
            single = self.model.predict(interaction[some].to(self.device)).view(-1)
            try:
                ranked = self._scores_of_all(interaction[first[: int(history[some].max()) + 1]])
            except (NotImplementedError, KeyError):
                return False
        items = interaction[self.config["ITEM_ID_FIELD"]][some].to(self.device)
        alike = torch.allclose(ranked[history[some].to(self.device), items], single, rtol=1e-4, atol=1e-5)
        if not alike:
            logger.info(
                "%s scores single items otherwise than rankings: sampled items are evaluated one by one",
                self.config["model"],
            )
        return alike

    def _seen_by(self, interaction, positive_u, positive_i):
        """Row and item of what the users of a batch [B] have seen; a target seen before stays in the ranking."""
        users, n_items = interaction[self.config["USER_ID_FIELD"]].cpu().numpy(), self.tot_item_num
        if self._whole is not None:
            counts = interaction[SEEN_COUNT].cpu().numpy()
            rows = np.repeat(np.arange(len(users)), counts)
            items = np.concatenate([self._whole[user][:count] for user, count in zip(users.tolist(), counts)])
            rows, items = np.divmod(np.unique(rows * n_items + items), n_items)
        else:
            rows, items = self._seen_now[users].nonzero()
        targets = positive_u.numpy() * n_items + positive_i.numpy()
        masked = ~np.isin(rows.astype(np.int64) * n_items + items, targets)
        return torch.from_numpy(rows[masked]).long(), torch.from_numpy(items[masked]).long()

    def _collect_ranks(self, interaction, scores, positive_u, positive_i):
        without_padding = scores[:, 1:]
        better, equal = places(without_padding, positive_u.to(scores.device), positive_i.to(scores.device) - 1)
        users = interaction[self.config["USER_ID_FIELD"]].cpu().numpy()[positive_u.numpy()]
        numbers = self.eval_collector.users[-1][positive_u.numpy()] if processes.size() > 1 else users
        best, top = without_padding.topk(min(TOP, without_padding.shape[1]), dim=1)  # [B, TOP]
        top = (top + 1).masked_fill(best == -torch.inf, 0).int().cpu().numpy()[positive_u.numpy()]
        self._ranks.append((numbers, users, positive_i.numpy(), 1 + better.cpu().numpy(), equal.cpu().numpy() - 1, top))

    def _write_ranks(self, dataset):
        """``user``, ``item`` (names), ``rank`` (1 is best) and ``ties``: how many other items score the same, and
        may stand before the target as well as behind it. ``top`` [n, TOP] are the places in ``catalogue`` (names) of
        the items that are ranked first, 0 where a model ranks no further one."""
        users, items, ranks, ties, top = processes.gathered(*(np.concatenate(column) for column in zip(*self._ranks)))
        self._ranks = None
        if not processes.is_first():
            return
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        np.savez(
            Path(self.folder) / RANKS,
            user=np.asarray(dataset.id2token(dataset.uid_field, users), dtype=str),
            item=np.asarray(dataset.id2token(dataset.iid_field, items), dtype=str),
            rank=ranks,
            ties=ties,
            top=top,
            catalogue=np.asarray(dataset.field2id_token[dataset.iid_field], dtype=str),
        )


def count_seen(data: Any, histories: ByUser) -> None:
    """Write into the rows of validation and test how many interactions their user has had before the target.

    Args:
        data: :class:`~recbole_contrec.data.loading.RunData` of a sequential model. The last interactions of a user are
            the targets of the test, and those before them the ones of validation.
        histories: all interactions of every user.
    """
    later: dict[int, int] = {}  # targets of a user that have been counted already
    for loader in (data.test, data.valid):
        rows = loader.dataset.inter_feat
        users = rows[data.dataset.uid_field].numpy()
        counts = np.empty(len(users), dtype=np.int64)
        for row in reversed(range(len(users))):  # rows are in order of time
            user = int(users[row])
            later[user] = later.get(user, 0) + 1
            counts[row] = len(histories[user]) - later[user]
        rows.interaction[SEEN_COUNT] = torch.from_numpy(counts)


def no_score_is_the_worst(scores: torch.Tensor, model: str) -> torch.Tensor:
    """Scores [B, N] with -inf in place of NaN, which ``topk`` would put first.

    Raises:
        FloatingPointError: not one item but the padding has a score.
    """
    missing = scores.isnan()
    if not missing.any():
        return scores
    if missing[:, 1:].all():
        raise FloatingPointError(
            f"{model} scores no item (all scores are NaN): it has diverged, or has a fault. Try a smaller "
            "--learning_rate"
        )
    logger.warning(
        "%s: %s of %s scores are NaN; these items are ranked last",
        model,
        f"{int(missing.sum()):,}",
        f"{scores.numel():,}",
    )
    return scores.masked_fill(missing, -torch.inf)


def first_rows(row_idx: torch.Tensor, positive_u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """RecBole's rows of a batch with sampled items: those of a user follow each other, their targets first, and then
    the same histories again and again with other items.

    Args:
        row_idx: user of every row [R], counted from 0 in the batch.
        positive_u: user of every target [P].

    Returns:
        tuple: the rows that hold the targets [P], and for every row which of these has its history [R].
    """
    targets, rows = torch.bincount(positive_u), torch.bincount(row_idx)  # [U]
    place = torch.arange(len(row_idx)) - (rows.cumsum(0) - rows)[row_idx]  # of a row among those of its user
    of_user = targets[row_idx]
    return (place < of_user).nonzero().squeeze(1), (targets.cumsum(0) - targets)[row_idx] + place % of_user


def side_by_side(rows: torch.Tensor, items: torch.Tensor, batch: int) -> torch.Tensor:
    """Items [n] of the rows of a batch, beside each other: [batch, E], filled up with 0.

    Args:
        rows: that they belong to [n], in rising order.
    """
    counts = torch.bincount(rows, minlength=batch)
    place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    return items.new_zeros(batch, int(counts.max()) if len(rows) else 0).index_put_((rows, place), items)
