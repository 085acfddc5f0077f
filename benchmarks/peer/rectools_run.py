"""
benchmarks.peer.rectools_run
############################
SASRec and BERT4Rec of RecTools, trained on the histories of a task and ranked as our models are.

    python -m benchmarks.peer.rectools_run --versions
    python -m benchmarks.peer.rectools_run FOLDER

The model, its training step and its loader are RecTools' own. RecTools takes the last epoch of a fixed number; here a
callback of its Lightning trainer ranks the validation targets after every epoch, keeps the best one, and stops after
some without a better one. It also writes a state, from which a killed run goes on.
"""

import argparse
import json
import platform
import random
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peer.exchange import MASKED, TEST, VALID, Ranked, Task, read_task, write_outcome
from benchmarks.peer.progress import Progress
from benchmarks.peer.ranking import ndcg_at_10, rank_targets

MODELS = {"SASRec": SASRecModel, "BERT4Rec": BERT4RecModel}
PACKAGES = ("rectools", "torch", "pytorch-lightning", "numpy", "pandas")
USERS_AT_ONCE = 256  # RecTools' own default of recommend_batch_size
ALIKE = 0.99  # share of the items of RecTools' own lists that must stand in ours; float32 may swap near ties


class BestEpoch(Callback):
    """Ranks the validation targets after every epoch, and keeps the weights of the best one.

    Args:
        folder: with the task; the state of training is written there.
    """

    def __init__(self, folder: str):
        self.task, self.asked = read_task(Path(folder))
        self.progress = Progress(Path(folder), self.asked["epochs"], self.asked["patience"])
        self.histories: DataLoader | None = None  # before validation; prepared once
        self.begun = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the state of a killed run, and random numbers that depend on seed and epoch alone."""
        if self.progress.resumed is not None:
            pl_module.torch_model.load_state_dict(self.progress.resumed["weights"])
            trainer.optimizers[0].load_state_dict(self.progress.resumed["optimizer"])
            self.progress.resumed = None
        seed_all(self.asked["seed"], len(self.progress.curve) + 1)
        self.begun = perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: validate."""
        seconds = perf_counter() - self.begun
        if self.histories is None:
            self.histories = loader_of(pl_module.data_preparator, self.task, VALID)
        scores = scores_of(pl_module, self.histories, self.task.n_items)
        score = ndcg_at_10(rank_targets(scores, self.task.valid, self.asked["top"]), self.task.valid)
        self.progress.add(score, seconds, pl_module.torch_model.state_dict(), trainer.optimizers[0].state_dict())
        trainer.should_stop = self.progress.patience_is_over


def make_trainer(folder: str) -> Trainer:
    """The trainer that RecTools asks for: on the CPU, with nothing but :class:`BestEpoch`."""
    watch = BestEpoch(folder)
    return Trainer(
        max_epochs=watch.progress.epochs_left,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
        default_root_dir=folder,
    )


def run(folder: Path) -> None:
    """Train a model, rank with its best epoch, and write what the other environment reads."""
    task, asked = read_task(folder)
    torch.set_num_threads(asked["threads"])
    seed_all(asked["seed"], 0)
    model = MODELS[asked["model"]](
        **asked["settings"], get_trainer_func=make_trainer, get_trainer_func_kwargs={"folder": str(folder)}
    )
    model.fit(dataset_of(task, VALID))
    # RecTools trains with a copy of the trainer that it was given, and of what is in it.
    progress = next(part.progress for part in model.fit_trainer.callbacks if isinstance(part, BestEpoch))
    model.torch_model.load_state_dict(progress.best)
    module = model.lightning_model
    rankings = rank(module, task, asked["top"])
    outcome = {
        "best_epoch": progress.best_epoch,
        "curve": progress.curve,
        "epoch_seconds": progress.epoch_seconds,
        "interactions_an_epoch": len(model.data_preparator.train_dataset.interactions.df),
        "unknown_items": task.n_items - len(model.data_preparator.get_known_item_ids()),
        "parameters": sum(parameter.numel() for parameter in module.torch_model.parameters()),
        "recommend_seconds": recommend_seconds(model, task, rankings[TEST], asked["top"]),
        "peak_memory_mib": peak_memory_mib(),
    }
    write_outcome(folder, rankings, outcome)


def dataset_of(task: Task, phase: str) -> Dataset:
    """Histories as RecTools reads them, in an order that cannot be mistaken: every place is a second."""
    histories = task.histories(phase)
    lengths = [len(items) for items in histories]
    places = np.concatenate([np.arange(length) for length in lengths])
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: np.repeat(np.arange(len(histories)), lengths),
                Columns.Item: np.concatenate(histories),
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(places, unit="s"),
            }
        )
    )


def rank(module: LightningModule, task: Task, top: int) -> dict[str, Ranked]:
    """Places of the validation and test targets, and of the latter without the items that a user has seen."""
    valid, test = (loader_of(module.data_preparator, task, phase) for phase in (VALID, TEST))
    return {
        VALID: rank_targets(scores_of(module, valid, task.n_items), task.valid, top),
        TEST: rank_targets(scores_of(module, test, task.n_items), task.test, top),
        MASKED: rank_targets(scores_of(module, test, task.n_items), task.test, top, task.histories(TEST)),
    }


def loader_of(data: Any, task: Task, phase: str) -> DataLoader:
    """Batches of what is known of all users before a target, in their order, as RecTools reads them.

    Args:
        data: RecTools' data preparator of a fitted model.

    Raises:
        RuntimeError: RecTools leaves out a user.
    """
    prepared = data.transform_dataset_u2i(dataset_of(task, phase), np.arange(task.n_users))
    if list(prepared.user_id_map.external_ids) != list(range(task.n_users)):
        raise RuntimeError("RecTools leaves out users, or has them in another order")
    return data.get_dataloader_recommend(prepared, USERS_AT_ONCE)


@torch.no_grad()
def scores_of(module: LightningModule, batches: DataLoader, n_items: int) -> Iterator[Tensor]:
    """Scores of the catalogue for users, each [b, 1 + N]; of items that it has not been trained on RecTools knows
    nothing: -inf."""
    network, data = module.torch_model, module.data_preparator
    known = torch.from_numpy(np.asarray(data.get_known_item_ids(), dtype=np.int64))
    was_training = network.training
    network.eval()
    items = network.item_model.get_all_embeddings()
    for batch in batches:
        states = network.encode_sessions(batch, items)[:, -1:, :]  # [b, 1, D]
        logits = network.similarity_module(states, items)[:, 0, data.n_item_extra_tokens :]  # [b, known items]
        scores = logits.new_full((len(logits), 1 + n_items), -torch.inf)
        scores[:, known] = logits
        yield scores
    network.train(was_training)


def recommend_seconds(model: Any, task: Task, ranked: Ranked, top: int) -> float:
    """How long RecTools' ``recommend`` takes for the best items of all users.

    Raises:
        RuntimeError: its lists are not those of our ranking of its scores.
    """
    dataset, users = dataset_of(task, TEST), np.arange(task.n_users)
    start = perf_counter()
    table = model.recommend(users=users, dataset=dataset, k=top, filter_viewed=False)
    seconds = perf_counter() - start
    own = np.full((task.n_users, top), -1)
    own[table[Columns.User], table[Columns.Rank] - 1] = table[Columns.Item]
    alike = np.mean([len(np.intersect1d(*pair)) / top for pair in zip(own, ranked.top)])
    if alike < ALIKE:
        raise RuntimeError(f"RecTools' own lists share {alike:.1%} of their items with the ranking of its scores")
    return seconds


def seed_all(seed: int, epoch: int) -> None:
    """Random numbers of Python, numpy and torch, anew for every epoch."""
    drawn = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)
    torch.manual_seed(drawn)


def peak_memory_mib() -> int | None:
    """Largest resident memory of this process so far; None where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), None)


def versions() -> dict[str, str]:
    """Of Python and of what the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def main() -> None:
    """The command line, see above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--versions", action="store_true", help="print the versions of the packages, as JSON")
    given = parser.parse_args()
    if given.versions:
        print(json.dumps(versions()))
    elif given.folder:
        run(given.folder)
    else:
        sys.exit("error: name a folder")


if __name__ == "__main__":
    main()
