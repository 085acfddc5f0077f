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
