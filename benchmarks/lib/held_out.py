"""
benchmarks.lib.held_out
#######################
A data set that keeps some users, or some items, out of every stage of training and of validation.
"""

from typing import Any, NamedTuple

import numpy as np

from recbole_contrec.data.windows import Histories, WindowDataset
from recbole_contrec.errors import UserError


def require_one_target(config: Any) -> None:
    """Stop where a user may have several targets, or none, and what is measured is about the target of each.

    Raises:
        UserError: another split than leave-one-out.
    """
    if config["eval_args"]["split"] != {"LS": "valid_and_test"}:
        raise UserError(
            "eval_args.split: one test target of every user is looked at here: leave it at {'LS': 'valid_and_test'}"
        )


class Removed(NamedTuple):
    """What training does not see: internal numbers of users or items, and their training interactions [n] in order
    of time."""

    kind: str
    numbers: np.ndarray
    users: np.ndarray
    items: np.ndarray


class HeldOutDataset(WindowDataset):
    """A :class:`~recbole_contrec.data.windows.WindowDataset` without the training interactions of a share of its users
    or items, without the texts of these items, and without the rows of validation that are about them. The rows of the
    test are all there; ``whole_texts`` keeps the texts.

    Reads ``hold`` (``users`` or ``items``), ``hold_share`` and ``seed``, which draws them.
    """

    def data_augmentation(self):
        require_one_target(self.config)
        super().data_augmentation()
        numbers, items = self.histories.pairs()
        kind = self.config["hold"]
        entities = numbers if kind == "users" else items
        known = np.unique(entities)
        count = max(1, round(self.config["hold_share"] * len(known)))
        drawn = np.sort(np.random.default_rng(self.config["seed"]).choice(known, count, replace=False))
        if kind == "items":
            self.whole_texts, hidden = self.item_texts, set(drawn.tolist())
            self.item_texts = {
                field: ["" if item in hidden else text for item, text in enumerate(texts)]
                for field, texts in self.item_texts.items()
            }
        out = np.isin(entities, drawn)
        order = np.argsort(self._training_times()[out], kind="stable")
        self.removed = Removed(kind, drawn, numbers[out][order], items[out][order])
        users, lengths = np.unique(numbers[~out], return_counts=True)
        self.histories = Histories(items[~out], np.concatenate([[0], np.cumsum(lengths)]), users)

    def _training_times(self) -> np.ndarray:
        """Time of every training interaction, in the order of ``histories``."""
        whole, training = np.diff(self.borders), np.diff(self.histories.offsets)
        place = np.arange(self.borders[-1]) - np.repeat(self.borders[:-1], whole)
        return self.inter_feat[self.time_field].numpy()[place < np.repeat(training, whole)]

    def held_out_targets(self) -> tuple[np.ndarray, np.ndarray]:
        valid, test = super().held_out_targets()
        field = self.uid_field if self.removed.kind == "users" else self.iid_field
        return valid[~np.isin(self.inter_feat[field].numpy()[valid], self.removed.numbers)], test
