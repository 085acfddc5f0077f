"""
recbole_contrec.training.metrics
################################
RecBole's metrics of coverage and popularity as its documentation defines them, where its code computes something else.
"""

import logging
from collections import Counter
from typing import Any

import numpy as np
import torch
from recbole.evaluator.metrics import ShannonEntropy
from torch import Tensor

from recbole_contrec import processes
from recbole_contrec.compat import SafeCollector

logger = logging.getLogger("recbole_contrec")

MENDED = {  # metric -> what RecBole 1.2.1 computes in its place
    "shannonentropy": "divides the sum by the number of different items",
    "itemcoverage": "counts the padding entry as an item of the catalogue",
    "giniindex": "counts the padding entry as an item of the catalogue",
    "averagepopularity": "leaves out the first interaction of every training history of a sequential model",
    "tailpercentage": "leaves out the first interaction of every training history of a sequential model",
}


ITEMS_AT_ONCE = 2**14  # whose scores are counted together
OF_USERS = {"rec.items", "rec.topk", "rec.meanrank"}  # what RecBole collects for metrics, a row a user


class Entropy(ShannonEntropy):
    """The entropy of the recommended items, ``-sum p log p``; a hundred users with one same item have 0."""

    def get_entropy(self, item_matrix: np.ndarray) -> float:
        """Entropy in nats of item numbers [users, K]."""
        counts = np.unique(item_matrix, return_counts=True)[1]
        share = counts / counts.sum()
        return float(-(share * np.log(share)).sum())


class TrainingCollector(SafeCollector):
    """What metrics need of the training data: the catalogue without its padding entry, and all interactions. What
    several processes have collected of their users comes together before a metric is computed, once.

    Attributes:
        users: numbers of the users of this process in an evaluation, a batch each; several processes fill it.
    """

    def __init__(self, config: Any):
        super().__init__(config)
        self.users: list[np.ndarray] = []

    def eval_batch_collect(self, scores: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor) -> None:
        """RecBole's hook behind every batch of scores [B, N]: what it collects, the same numbers, without the matrices
        [B, N] that it makes to find them, which take up to twenty times the memory of the scores."""
        need, put = self.register.need, self.data_struct.update_tensor
        if need("rec.items") or need("rec.topk") or need("rec.meanrank"):
            users, items = distinct(positive_u.to(scores.device), positive_i.to(scores.device), scores.shape[1])
            count = torch.bincount(users, minlength=len(scores))[:, None]  # [B, 1] positives a user
        if need("rec.items") or need("rec.topk"):
            best = torch.topk(scores, max(self.topk), dim=-1).indices  # [B, K]
            if need("rec.items"):
                put("rec.items", best)
            if need("rec.topk"):
                row = torch.arange(len(scores), device=scores.device)[:, None] * scores.shape[1]
                put("rec.topk", torch.cat([torch.isin(row + best, users * scores.shape[1] + items).long(), count], 1))
        if need("rec.meanrank"):
            better, equal = places(scores, users, items)
            mean_rank = 0.5 * (2 * better + equal + 1)  # of items with equal scores
            ranks = mean_rank.new_zeros(len(scores)).index_add_(0, users, mean_rank)[:, None]  # [B, 1]
            above_lowest = count_above(scores, scores.amin(1))[:, None]  # what is masked has the lowest score
            put("rec.meanrank", torch.cat([ranks, above_lowest.to(ranks.dtype), count.to(ranks.dtype)], 1))
        if need("rec.score"):
            put("rec.score", scores)
        if need("data.label"):
            put("data.label", interaction[self.config["LABEL_FIELD"]].to(self.device))

    def get_data_struct(self) -> Any:
        """RecBole's hook, behind the last batch."""
        if processes.size() > 1:
            numbers, held = np.concatenate(self.users), self.data_struct._data_dict
            for key in sorted(OF_USERS & held.keys()):  # in one order in all processes
                held[key] = torch.from_numpy(processes.gathered(numbers, held[key].cpu().numpy())[0])
        self.users = []
        return super().get_data_struct()

    def data_collect(self, train_data: Any) -> None:
        """RecBole's hook, before the first evaluation."""
        super().data_collect(train_data)
        if self.register.need("data.num_items"):
            self.data_struct.set("data.num_items", train_data.dataset.item_num - 1)
        if self.register.need("data.count_items"):
            self.data_struct.set("data.count_items", item_counts(train_data.dataset))


def distinct(users: Tensor, items: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Pairs of users and items [P] without repetitions, in rising order."""
    pairs = (users * n_items + items).unique()
    return pairs // n_items, pairs % n_items


def places(scores: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """For pairs of a row of scores [B, N] and an item [P]: how many items of the row score more, and how many as much,
    the item itself included; whole numbers [P] each."""
    better, equal = torch.empty_like(users), torch.empty_like(users)
    all_rows = torch.arange(len(scores), device=users.device)
    for start in range(0, len(users), max(len(scores), 1)):
        part = slice(start, start + len(scores))
        rows = scores if torch.equal(users[part], all_rows) else scores[users[part]]  # a copy where users have several
        own = scores[users[part], items[part]]
        above, at_least = count_above(rows, own), count_above(rows, own, or_equal=True)
        better[part], equal[part] = above, at_least - above
    return better, equal


def count_above(scores: Tensor, bound: Tensor, or_equal: bool = False) -> Tensor:
    """How many scores of each row [B, N] are above a bound [B]. torch counts in 64 bits a score, so the items pass in
    chunks."""
    compare = torch.ge if or_equal else torch.gt
    total = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    for part in scores.split(ITEMS_AT_ONCE, dim=1):
        total += compare(part, bound[:, None]).sum(1)
    return total


def item_counts(dataset: Any) -> Counter:
    """How often each item occurs in training data; the rows that RecBole makes of a history begin with its second item.

    Args:
        dataset: RecBole's training data set, or ours.
    """
    counts = Counter(dataset.item_counter)
    length, history = dataset.config["ITEM_LIST_LENGTH_FIELD"], dataset.iid_field + dataset.config["LIST_SUFFIX"]
    if length in dataset.inter_feat and history in dataset.inter_feat:
        first = dataset.inter_feat[length] == 1
        counts.update(dataset.inter_feat[history][first][:, 0].tolist())
    return counts


def mend(evaluator: Any) -> None:
    """Give an evaluator of RecBole the metrics that it documents, and say which of them differ from what its code
    computes."""
    if "shannonentropy" in evaluator.metric_class:
        evaluator.metric_class["shannonentropy"] = Entropy(evaluator.config)
    for metric in filter(MENDED.get, evaluator.metrics):
        logger.info("%s is computed as RecBole documents it; its code %s", metric, MENDED[metric])
