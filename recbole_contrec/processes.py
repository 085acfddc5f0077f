"""
recbole_contrec.processes
#########################
Several processes that train one model, as ``torchrun`` starts them: whatever depends on which of them this one is.

Every process reads all data and holds the whole model. Of each batch it computes a share; gradients and results of
users are brought together, so that all processes hold the same model and decide alike. The first one writes, the others
are silent but for errors. Names, results of users and numbers for the log travel between CPUs (gloo), gradients between
GPUs where models are on them (NCCL).

This is plain torch.distributed and not accelerate, which would own the loop of training, the loaders and the optimizer:
these are RecBole's here, and batches have to be dealt out by what their rows cost. What is left for accelerate is a
group and a sum, which PyTorch has.

With one process nothing here does anything: no group is made and no random number drawn.
"""

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from recbole_contrec.errors import UserError

PATIENCE = timedelta(
    days=30
)  # with stages that the first process computes; torchrun ends those that wait for a dead one
_LOST = ("gloo", "Connection closed", "Connection reset", "NCCL", "process group", "Broken pipe")  # in errors of torch
_STARTED_BY_TORCHRUN = {"RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}

_together = False  # whether this process is one of a group
_failed = False  # whether one of its runs has


@contextmanager
def together() -> Iterator[None]:
    """Inside this block the processes that torchrun has started are one run; it may stand in another one.

    Raises:
        UserError: another process has failed.
    """
    global _together, _failed
    several = int(os.environ.get("WORLD_SIZE") or 1) > 1 and _STARTED_BY_TORCHRUN <= os.environ.keys()
    if _together or not several:
        yield
        return
    if not dist.is_initialized():
        # for all runs of this process: a second group would read the addresses of the first one in torchrun's store
        dist.init_process_group("gloo", timeout=PATIENCE, **_place())
        atexit.register(_leave)
    _together = True
    first = is_first()
    if not first:
        logging.disable(logging.WARNING)
    try:
        yield
        _barrier()  # nobody leaves before the files of a run are whole
    except BaseException as error:
        _failed = True
        if not first:
            time.sleep(5)  # what is wrong in all processes is told once: torchrun ends the others when the first does
        if isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST):
            raise UserError(
                "another process of this run has failed, its error is above; a run that was saved goes on by --resume"
            ) from error
        raise
    finally:
        logging.disable(logging.NOTSET)
        _together = False


def _place() -> dict[str, Any]:
    """Store, rank and number of processes as torchrun names them. It keeps its store over restarts: without a prefix,
    a process may read the address of one that has died."""
    store, rank, several = next(rendezvous("env://"))
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT") or "0"
    return {"store": dist.PrefixStore(f"start {restarts}", store), "rank": rank, "world_size": several}


def _leave() -> None:
    if dist.is_initialized() and not _failed:  # after an error it would wait for the others
        dist.destroy_process_group()


def may_restart() -> bool:
    """Whether torchrun starts all processes again where one of them fails (``--max_restarts``)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS") or 0) > 0


def is_restart() -> bool:
    """Whether torchrun has started these processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0


def time_of_first_start() -> float:
    """When the torchrun of this process was started, which all restarts share; in seconds since the epoch."""
    return psutil.Process(os.getppid()).create_time()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together else 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not _together or dist.get_rank() == 0


def own_gpu(numbers: str, may_be_more: bool = True) -> str:
    """The GPU of this process out of those that are named, ``0,1``; none where they are hidden, ``""`` or ``-1``.

    Args:
        may_be_more: whether a single number is the first of as many as there are processes here.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    names = [name.strip() for name in numbers.split(",")]
    if not _together or names in ([""], ["-1"]):
        return numbers
    place, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if may_be_more and len(names) == 1 and names[0].isdecimal():
        return str(int(names[0]) + place)
    if len(names) < here:
        raise UserError(f"{len(names)} GPUs ({numbers}) for {here} processes: each needs one of its own")
    return names[place]


# one after the other


def _barrier() -> None:
    if _together:
        dist.all_reduce(torch.zeros(1))


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process goes through this block, then the others, who find what it has made.

    Raises:
        UserError: in the others, where the first one has failed in this block.
    """
    if not is_first() and summed([0.0])[0]:
        raise UserError("the first process of this run has failed, its error is above")
    try:
        yield
    except BaseException:
        if is_first():
            summed([1.0])  # else the others would wait for it, whoever catches this
        raise
    if is_first():
        summed([0.0])


def from_first(make: Callable[[], Any]) -> Any:
    """What a function gives, or the user's mistake that it finds, in the first process: the same for all."""
    if not _together:
        return make()
    _barrier()  # whatever the others look at before, stays as it is
    found: list[Any] = [None, None]
    if is_first():
        try:
            found[0] = make()
        except UserError as error:
            found[1] = str(error)
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


# shares of a batch


def own_share(costs: Tensor) -> Tensor:
    """Rows of a batch that this process computes, in rising order; there are none where rows are fewer than processes.

    Args:
        costs: of every row [B], in any unit.
    """
    return dealt_out(costs, size())[dist.get_rank() if _together else 0]


def dealt_out(costs: Tensor, count: int) -> list[Tensor]:
    """Rows in so many shares, each in rising order: they are dealt out from the dearest to the cheapest, back and
    forth, so that all shares cost about as much.

    Args:
        costs: of every row [B], in any unit.
    """
    turn = torch.arange(len(costs), device=costs.device) % (2 * count)
    dealt = torch.minimum(turn, 2 * count - 1 - turn)
    order = costs.argsort(descending=True, stable=True)
    return [order[dealt == share].sort().values for share in range(count)]


class MeanGradients:
    """After a backward pass, replaces the gradients of a module by their means over all processes; nothing with one
    process. All processes begin with the parameters of the first one. What is in parts over the processes
    (:mod:`recbole_contrec.sharding`) is left alone.

    Not DistributedDataParallel: terms of a loss may be switched off, and shares may lack what a parameter is for. It
    can look for such parameters, and then warns in every run that has none.

    Args:
        module: on its device.
    """

    def __init__(self, module: nn.Module):
        tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse}
        trained = [p for p in module.parameters() if p.requires_grad and not is_part(p)]
        self.parameters = [p for p in trained if id(p) not in tables]
        self.tables = [p for p in trained if id(p) in tables]  # whose gradients are sparse
        if not _together:
            return
        self.group = new_group(self.parameters[0].device)
        for parameter in module.parameters():
            if not is_part(parameter):
                dist.broadcast(parameter.data, 0, group=self.group)

    def behind(self, loss: Tensor) -> None:
        """Watch the backward pass of a loss."""
        if not _together:
            return
        # the engine's list of what follows a pass, as FSDP uses it: whoever clips and steps comes behind it
        loss.register_hook(lambda _: torch.autograd.Variable._execution_engine.queue_callback(self._average))

    @torch.no_grad()
    def _average(self) -> None:
        parameters = self.parameters
        wide = torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([p.grad is not None for p in parameters], dtype=wide, device=grads[0].device)
        flat = torch.cat([used, *(grad.to(wide).flatten() for grad in grads)])
        dist.all_reduce(flat, group=self.group)
        used, *sums = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, of_all, found in zip(parameters, used.tolist(), sums):
            if of_all:  # else it has no gradient, and an optimizer passes it over
                parameter.grad = (found / size()).view_as(parameter).to(parameter.dtype)
        for table in self.tables:
            self._average_rows(table)

    def _average_rows(self, table: Tensor) -> None:
        """The same for a sparse gradient: each process hands the others the rows that it has."""
        if table.grad is None:
            rows, values = torch.zeros(0, dtype=torch.long, device=table.device), table.new_zeros(0, table.shape[1])
        else:
            gradient = table.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        counts = [torch.zeros(1, dtype=torch.long, device=table.device) for _ in range(size())]
        dist.all_gather(counts, torch.tensor([len(rows)], device=table.device), group=self.group)
        lengths = [int(count) for count in counts]
        if not sum(lengths):
            return
        all_rows = torch.cat(self._gathered(rows, lengths))
        all_values = torch.cat(self._gathered(values, lengths)) / size()
        table.grad = torch.sparse_coo_tensor(all_rows[None], all_values, table.shape, check_invariants=False).coalesce()

    def _gathered(self, part: Tensor, lengths: list[int]) -> list[Tensor]:
        """Tensors [m, ...] of all processes, each of a length of its own."""
        padded = part.new_zeros(max(lengths), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded, group=self.group)
        return [part[:length] for part, length in zip(parts, lengths)]


def new_group(device: torch.device) -> Any:
    """All processes, to exchange tensors of a device: NCCL between GPUs, gloo between CPUs."""
    return dist.new_group(backend="nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def is_part(tensor: Any) -> bool:
    """Whether a parameter is in parts over several processes: a DTensor."""
    return hasattr(tensor, "full_tensor")


def draw_apart(*seed: int) -> None:
    """From now on torch draws other numbers in each process, so that no two rows of a batch share their dropout; in the
    first process those that it would draw alone."""
    if not is_first():
        torch.manual_seed(int(np.random.SeedSequence((dist.get_rank(), *seed)).generate_state(1)[0]))


# bringing together


def summed(numbers: Sequence[float]) -> list[float]:
    """Sums over all processes."""
    if not _together:
        return list(numbers)
    found = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(found)
    return found.tolist()


def each(numbers: Sequence[float]) -> list[list[float]]:
    """The numbers of every process."""
    if not _together:
        return [list(numbers)]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, list(numbers))
    return found


def gathered(numbers: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows of all processes, in the order of one.

    Args:
        numbers: of the rows of this process among all [n]; rows of the same number come from one process, the first
            that has it.
        columns: [n, ...] each.
    """
    if not _together:
        return columns
    parts: list[Any] = [None] * size()
    dist.all_gather_object(parts, (numbers, *columns))
    owner = np.repeat(np.arange(size()), [len(part[0]) for part in parts])
    numbers, *columns_of_all = (np.concatenate(column) for column in zip(*parts))
    first = np.full(int(numbers.max(initial=-1)) + 1, size())
    np.minimum.at(first, numbers, owner)
    order = np.argsort(numbers, kind="stable")
    order = order[(owner == first[numbers])[order]]
    return tuple(column[order] for column in columns_of_all)
