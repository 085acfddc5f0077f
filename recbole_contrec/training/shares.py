"""
recbole_contrec.training.shares
###############################
What is computed of a batch at once: the share of one of several processes, the parts of it that are added up, the
users of an evaluation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import EvaluatorType
from torch import Tensor, nn

from recbole_contrec import processes
from recbole_contrec.errors import UserError
from recbole_contrec.interface import TrainsOnWindows
from recbole_contrec.sharding import Shards

# Models of RecBole whose loss is a mean over the rows of a batch: losses of shares add up to it. Others couple rows, or
# keep a state beside their parameters.
OF_RECBOLE = frozenset(("SASRec", "GRU4Rec"))


class SharedLoss:
    """The loss of a batch, computed by all processes together, and by each of them in parts, one after the other.

    Every part gives the terms of its own rows, weighted so that their sum over the parts, and its mean over the
    processes, is the loss of the whole batch, however its rows are dealt out; and so are the gradients.

    Args:
        model: on its device, after the stages before training.
        steps: parts of a batch at most.
        shards: where its language model is in parts over the processes.
    """

    def __init__(self, model: nn.Module, steps: int = 1, shards: Shards | None = None):
        self.model: Any = model
        self.steps, self.shards = steps, shards
        self.length: str = getattr(model, "ITEM_SEQ_LEN", "")
        self.gradients = processes.MeanGradients(model)

    def __call__(self, batch: Interaction) -> Any:
        """The weighted terms of this process, of the type that the model gives, in one part."""
        return self._of_rows(batch, processes.own_share(self._costs(batch)), last=True)

    def parts(self, batch: Interaction) -> list[Callable[[], Any]]:
        """What computes the weighted terms of each part; the gradients of one are to be had before the next one is
        computed. All processes have as many."""
        costs = self._costs(batch)
        rows = processes.own_share(costs)
        count = min(self.steps, max(1, -(-len(batch) // processes.size())))  # of rows in the largest share
        *earlier, last = (rows[part] for part in processes.dealt_out(costs[rows], count))
        return [
            *(partial(self._of_rows, batch, part, last=False) for part in earlier),
            partial(self._of_rows, batch, last, last=True),
        ]

    def _of_rows(self, batch: Interaction, rows: Tensor, last: bool) -> Any:
        weight = self._count(batch[rows]) * processes.size() / self._count(batch)
        some = rows if len(rows) else rows.new_zeros(1)  # one of weight 0 where it has none
        loss = self.model.calculate_loss(batch[some])
        terms = [weight * term for term in (loss if isinstance(loss, tuple) else (loss,))]
        learned = next(number for number, term in enumerate(terms) if term.requires_grad)
        if self.shards is not None:
            terms[learned] = terms[learned] + self.shards.catch_up()
        if last:  # gradients of earlier parts are in the sum by then
            self.gradients.behind(terms[learned])
        return like(loss, terms)

    def _costs(self, batch: Interaction) -> Tensor:
        """Positions of windows; RecBole pads its rows to the same length."""
        if isinstance(self.model, TrainsOnWindows):
            return batch[self.length]
        return torch.zeros(len(batch), device=batch[batch.columns[0]].device)

    def _count(self, batch: Interaction) -> int:
        """What the loss of a batch is the mean over."""
        return self.model.windows.count_targets(batch) if isinstance(self.model, TrainsOnWindows) else len(batch)


def mean_loss(loss: Any) -> Any:
    """The mean over processes of what an epoch adds up, a number or terms."""
    if processes.size() == 1:
        return loss
    of_all = processes.summed(loss if isinstance(loss, tuple) else (loss,))
    return like(loss, [value / processes.size() for value in of_all])


def like(loss: Any, terms: list) -> Any:
    """Terms in the form of a loss: one alone, a tuple, or a NamedTuple."""
    return getattr(type(loss), "_make", tuple)(terms) if isinstance(loss, tuple) else terms[0]


def own_users(batch: tuple, length_field: str) -> tuple[tuple, Tensor]:
    """The part of an evaluation batch that is about the users of this process, as RecBole's loaders would make it.

    Args:
        batch: interaction; row and item of what is masked, or None, or the user of every row where items are sampled;
            users and items of the targets.
        length_field: length of a history, where it has one: what users cost.

    Returns:
        tuple: the part, and the numbers of its users in the batch.
    """
    interaction, others, positive_u, positive_i = batch
    sampled, users = torch.is_tensor(others), int(positive_u.max()) + 1
    known = not sampled and length_field in interaction
    own = processes.own_share(interaction[length_field] if known else torch.zeros(users))
    own = own if len(own) else own.new_zeros(1)  # somebody else has this user as well, and counts
    place = torch.full((users,), -1).index_put_((own,), torch.arange(len(own)))

    def of_own(user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        kept = place[user] >= 0
        return place[user[kept]], item[kept]

    if sampled:
        rows = (place[others] >= 0).nonzero().squeeze(1)
        interaction, others = interaction[rows], place[others[rows]]
    else:
        interaction, others = interaction[own], others and of_own(*others)
    return (interaction, others, *of_own(positive_u, positive_i)), own


def check_shares(config: Any, model: nn.Module) -> None:
    """Whether several processes would give what one gives.

    Raises:
        UserError: it is not known of this model, or these settings are made for one process.
    """
    if processes.size() == 1:
        return
    with_gpu = int(processes.summed([config["device"].type == "cuda"])[0])
    if 0 < with_gpu < processes.size():
        raise UserError(
            f"{with_gpu} of {processes.size()} processes have a GPU, and each needs one of its own: start fewer, or "
            "compute on the CPU with --use_gpu=False"
        )
    known = config.entry.is_recbole and type(model).__name__ in OF_RECBOLE
    if not (known or isinstance(model, TrainsOnWindows)):
        raise UserError(
            f"{config['model']} trains in one process only: of RecBole's models {' and '.join(sorted(OF_RECBOLE))} are "
            "known to give the same in several. Start it without torchrun"
        )
    alone = {"metrics": config["eval_type"] == EvaluatorType.VALUE, "learner": config["learner"] == "sparse_adam"}
    for name in filter(alone.get, alone):
        raise UserError(f"{name}={config[name]} works in one process only: start the run without torchrun")
