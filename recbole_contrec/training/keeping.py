"""
recbole_contrec.training.keeping
################################
What a run leaves behind and goes on from: its folder, the best model in it, and the state after its last epoch.
"""

import logging
import math
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from recbole.utils import get_local_time, set_color
from torch import nn

from recbole_contrec import processes
from recbole_contrec.environment import device_name, package_versions
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_file, clear_parts
from recbole_contrec.interface import Exports
from recbole_contrec.storage import checkpoint, folders, lock
from recbole_contrec.training.averaging import WeightAverage
from recbole_contrec.training.evaluation import RANKS, FullRanking
from recbole_contrec.training.identity import (
    Identity,
    check_identity,
    check_weights,
    fingerprint_of_data,
    load_weights,
    pack_model,
    pack_other,
)
from recbole_contrec.training.metrics import TrainingCollector, mend
from recbole_contrec.training.state import HasProgress, Packed, RunState

logger = logging.getLogger("recbole_contrec")

BEST, LAST, RESULT = "best.safetensors", folders.LAST, "result.json"
BEFORE = "best.before.safetensors"  # the best of earlier epochs, until the state after this one is saved as well


class KeptRun(HasProgress, FullRanking):
    """Mixin over a RecBole trainer: a folder a run, safe checkpoints, and resuming to the same numbers.

    A run's folder holds ``best.safetensors`` (the model that validated best), beside it what parts of this model export
    for other tools, ``last.safetensors`` (all that ``--resume`` needs, after every epoch) and ``test_ranks.npz``.
    """

    resumable = True

    def __init__(self, config: Any, model: nn.Module):
        super().__init__(config, model)
        self.eval_collector = TrainingCollector(config)
        mend(self.evaluator)
        self._stay_in(Path(config["checkpoint_dir"]) / (config["run_name"] or default_name(config)))
        self.claimed = False  # whether the folder is this run's own
        self.stays_locked = False  # when training is over: whoever runs this has more to write
        self.begun = False  # whether an epoch of this process has
        # stands in its checkpoints; None for a run of an earlier version
        self.run: str | None = processes.from_first(lambda: uuid.uuid4().hex)
        self.average = None
        if config["ema_decay"]:
            lazy_rows = getattr(self, "lazy_rows", None)
            self.average = WeightAverage(model, config["ema_decay"], lazy_rows.tables if lazy_rows else ())
            if lazy_rows:
                lazy_rows.before = self.average.before
            self.optimizer.register_step_post_hook(lambda *_: self.average.update())
        self.identity: Identity = None  # type: ignore[assignment]  # bind sets it before anything asks for it
        self.data: str | None = None  # fingerprint of what is read
        self.trained = False  # by an earlier run
        self.settings: dict[str, Any] = {}
        self.chosen: dict[str, dict[str, Any]] = {}  # settings left to validation, and what it chose
        self._valid_score = math.nan  # of the last validation
        self.best_is_saved = False  # by this run
        self.best_in_memory: dict[str, torch.Tensor] | None = None  # its weights
        self._epoch, self._batch = 0, 0
        self._resumed: RunState | None = None

    def bind(self, data: Any, settings: dict[str, Any], trained: bool = False) -> "KeptRun":
        """Remember the data and the settings of this run; both go into every checkpoint.

        Args:
            data: :class:`~recbole_contrec.data.loading.RunData`.
            settings: JSON-like, enough to build the configuration again.
            trained: whether the model was trained before: then `fit` goes on with it as it is, instead of running the
                stages that come before training.
        """
        self.identity, self.settings, self.trained = Identity.of(data.dataset), settings, trained
        self.data = fingerprint_of_data(data.dataset)
        self.bind_seen(data)
        return self

    def _stay_in(self, folder: Path) -> None:
        self.folder, self.saved_model_file = folder, str(folder / BEST)

    def claim_folder(self) -> None:
        """Make the folder of the run, unless that is done, or a resumed run has one.

        Raises:
            UserError: another run has it, or it cannot be made.
        """
        if not self.claimed:
            self._stay_in(
                folders.claim(Path(self.config["checkpoint_dir"]), self.config["run_name"], default_name(self.config))
            )
            self.claimed = True

    # checkpoints

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        """RecBole's hook: the model that validated best so far."""
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        tensors, exports = self._whole_model()
        if not processes.is_first():
            self.progress.best_epoch, self.best_is_saved = epoch, True
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(path.parent)
        if self.best_is_saved:
            checkpoint.keep(path, path.with_name(BEFORE))
        self.progress.best_epoch, self.best_is_saved = epoch, True
        checkpoint.save(path, tensors, self._record(epoch))
        for folder, write in exports.items():
            checkpoint.save_folder(path.parent / folder, write)
        if verbose:
            logger.info(set_color("Saving current", "blue") + f": {path}")

    def _whole_model(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors of the model and its data set, and what writes files for other tools, by the name of a folder. The
        first process alone has them to write; the others take part where the model is in parts over all of them."""
        if self.shards is None and not processes.is_first():
            return {}, {}
        exports = {
            folder: write
            for module in self.model.modules()  # a part that other tools read says how
            if isinstance(module, Exports)
            for folder, write in module.exports().items()
        }
        return pack_model(self.model, self.identity), exports

    def save_state(self, epoch, train_data):
        """Everything that a killed run needs to go on as if nothing had happened."""
        if self.shards is None and not processes.is_first():
            return
        tensors, record = self._state(epoch, train_data).to_storage()
        tensors = {**self._whole_model()[0], **tensors}
        if not processes.is_first():
            return
        checkpoint.save(self.folder / LAST, tensors, {**self._record(epoch), **record})
        (self.folder / BEFORE).unlink(missing_ok=True)

    def _state(self, epoch: int, train_data: Any) -> RunState:
        """What this trainer would go on from."""
        return RunState(
            epoch=epoch,
            progress=self.progress,
            optimizers={name: self._packed(optimizer) for name, optimizer in self._optimizers()},
            random=Packed(*checkpoint.pack_random_state()),
            generators={name: generator.get_state() for name, generator in self._generators(train_data)},
            average=self._whole_average(),
            average_steps=self.average.steps if self.average else 0,
            loss_scale=self._loss_scale(),
        )

    def _packed(self, optimizer: torch.optim.Optimizer) -> Packed:
        tensors, record = checkpoint.pack_optimizer(optimizer)
        return Packed(tensors if self.shards is None else self.shards.whole_state(optimizer, tensors), record)

    def _whole_average(self) -> dict[str, torch.Tensor]:
        if self.average is None or self.shards is None:
            return self.average.average if self.average else {}
        return self.shards.whole_average(self.average.average, self.average.parameters)

    def _loss_scale(self) -> dict[str, Any]:
        return self.scaler.state_dict() if hasattr(self, "scaler") else {}

    @property
    def _returns_to_best(self) -> bool:
        """Whether training may go back to the best model; see RefiningTrainer."""
        return getattr(self, "returns_to_best", False)

    def _compare_with(self, record: dict[str, Any], path: Path) -> None:
        """A run goes on with the data it began with, and says where the machine is another one.

        Raises:
            UserError: the data have changed, although users and items are the same.
        """
        if record.get("data") not in (None, self.data):
            raise UserError(
                f"{path} was trained on other interactions or texts of the same users and items of "
                f"{self.identity.dataset!r}: resume with the data of then, or train anew"
            )
        now = {**package_versions(), "device": device_name(self.device)}
        before = {**record.get("versions", {}), "device": record.get("device", now["device"])}
        if different := [
            f"{name} {now.get(name)} (it was {before[name]})" for name in before if now.get(name) != before[name]
        ]:
            logger.warning(
                "%s goes on with %s: its numbers may not be those of an uninterrupted run", path, ", ".join(different)
            )

    def _require_best(self, record: dict[str, Any], folder: Path) -> None:
        """The best model of the epochs before a kill is there and whole: a loss shall not be found after the training.

        Raises:
            UserError: it is missing, damaged, or of another run or epoch.
        """
        path = folder / BEST
        lost = f"the run in {folder} cannot be resumed without the best model of its epochs: train it anew"
        try:
            stored = checkpoint.load(path)
        except UserError as error:
            raise UserError(f"{error}; {lost}") from error
        check_identity(stored, self.config["model"], self.identity, path)
        require_own(stored.record, record.get("run"), path)
        if stored.record["epoch"] != record["best_epoch"]:
            raise UserError(
                f"{path} is the model of epoch {stored.record['epoch']}, and the best is that of epoch "
                f"{record['best_epoch']}: {lost}"
            )
        try:
            check_weights(self.model, path, stored)
        except UserError as error:
            raise UserError(f"{error}; {lost}") from error

    def load_best(self) -> Path:
        """Put the best weights of this run into the model.

        Raises:
            UserError: they are missing or damaged, or another run has written over them.
        """
        path = Path(self.saved_model_file)
        with processes.first_goes_first():  # who has written it
            stored = checkpoint.load(path)
        require_own(stored.record, self.run, path)
        load_weights(self.model, path, self.config["model"], self.identity, stored)
        return path

    def _record(self, epoch: int) -> dict[str, Any]:
        return {
            "run": self.run,
            "model": self.config["model"],
            "dataset": self.identity.dataset,
            "epoch": epoch,
            "settings": self.settings,
            "versions": package_versions(),
            "device": device_name(self.device),
            "data": self.data,
            "other": pack_other(self.model)[1],
        }

    def _generators(self, train_data: Any) -> Iterator[tuple[str, torch.Generator]]:
        """The random generators of the loaders: workers of that of validation are seeded by its own."""
        yield from _generators_of(train_data)
        yield from ((f"valid.{name}", generator) for name, generator in _generators_of(self.valid_data))

    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """Every optimizer of the trainer by attribute; RecVAE has two."""
        for name, value in vars(self).items():
            if isinstance(value, torch.optim.Optimizer):
                yield name, value

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Go on where a killed run stopped; takes the run's folder or its ``last.safetensors``.

        Raises:
            UserError: the file is no such checkpoint, or one of another model or data set; or the model's own
                training loop cannot be resumed.
        """
        path = last_checkpoint(resume_file)
        if not self.resumable:
            raise UserError(f"RecBole trains {self.config['model']} in a loop of its own, which cannot be resumed")
        lock.acquire(path.parent)
        clear_parts(path.parent)
        for name in (BEST, BEFORE, RESULT, RANKS):
            check_file(path.parent / name, "folder")
        stored = checkpoint.load(path)
        check_identity(stored, self.config["model"], self.identity, path)
        try:
            state = RunState.from_storage(stored)
            optimizer_states = self._check_state(state)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise checkpoint.damaged(path, error) from error
        self._compare_with(stored.record, path)
        drop_best_of_lost_epochs(path.parent, state.epoch)
        if state.progress.best_epoch >= 0:
            self._require_best(stored.record, path.parent)
        load_weights(self.model, path, self.config["model"], self.identity, stored)  # the last that can fail
        self._stay_in(path.parent)
        self.claimed, self.run = True, stored.record.get("run")
        self._take(state, optimizer_states)
        logger.info("Resuming %s after epoch %d", path, state.epoch)

    def _check_state(self, state: RunState) -> dict[str, dict[str, Any]]:
        """The states of the optimizers as these take them. Everything is tried out, and nothing is changed.

        Raises:
            KeyError, ValueError, TypeError, RuntimeError: a state that this trainer cannot take.
        """
        optimizer_states = {
            name: checkpoint.optimizer_state(optimizer, *state.optimizers[name])
            for name, optimizer in self._optimizers()
        }
        checkpoint.random_state(*state.random)
        for generator in state.generators.values():
            torch.Generator().set_state(generator)
        if self.average is not None:
            self.average.check(state.average)
        if state.loss_scale and state.loss_scale.keys() != self._loss_scale().keys():
            raise ValueError("its loss is scaled otherwise")
        return optimizer_states

    def _take(self, state: RunState, optimizer_states: dict[str, dict[str, Any]]) -> None:
        """Go on from a state; its random generators follow when training begins."""
        for name, optimizer in self._optimizers():
            optimizer.load_state_dict(optimizer_states[name])
        if self.average is not None:
            self.average.copy(state.average, self.average.average)
            self.average.steps = state.average_steps
        if state.loss_scale:
            self.scaler.load_state_dict(state.loss_scale)
        self._resumed, self.progress, self.start_epoch = state, state.progress, state.epoch + 1
        self.best_is_saved = state.progress.best_epoch >= 0


def drop_best_of_lost_epochs(folder: Path, epoch: int) -> None:
    """A kill between two saves of an epoch leaves a best model that the run, which goes on after ``epoch``, has not
    come to yet."""
    best, before = folder / BEST, folder / BEFORE
    if before.is_file() and (not best.is_file() or checkpoint.load(best).record["epoch"] > epoch):
        os.replace(before, best)
    before.unlink(missing_ok=True)


def require_own(record: dict[str, Any], run: str | None, path: Path) -> None:
    """Whether a checkpoint is that of a run.

    Raises:
        UserError: another one has written it.
    """
    if record.get("run") != run:
        raise UserError(f"{path} is not the best model of this run: another run has written over it")


def default_name(config: Any) -> str:
    """Of a run whose folder the user gives no name."""
    return f"{config['model']}-{config['dataset']}-{get_local_time()}-seed{config['seed']}"


def last_checkpoint(path: str | Path) -> Path:
    """The checkpoint to resume from, in a run's folder or named itself.

    Raises:
        UserError: it holds a model only.
    """
    path = Path(path) / LAST if Path(path).is_dir() else Path(path)
    if "optimizers" not in checkpoint.load(path).record:
        raise UserError(f"{path} holds a model only; --resume needs the {LAST} beside it")
    return path


def _generators_of(loader: Any) -> Iterator[tuple[str, torch.Generator]]:
    """The random generators of a loader and of the loaders inside it (knowledge graphs have two)."""
    for name in ("", "general_dataloader", "kg_dataloader"):
        generator = getattr(getattr(loader, name, None) if name else loader, "generator", None)
        if isinstance(generator, torch.Generator):
            yield name or "loader", generator
