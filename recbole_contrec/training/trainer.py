"""
recbole_contrec.training.trainer
################################
One trainer for every model of a run: RecBole's own training step or ours, the same evaluation, the same
checkpoints. :func:`trainer_class` puts :class:`RunTrainer` in front of whatever trainer class a model needs.
"""

import logging
import math
import os
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Iterator, NamedTuple

import torch
from recbole.trainer import DecisionTreeTrainer, PretrainTrainer, Trainer
from recbole.utils import dict2str, early_stopping, get_local_time, set_color

from recbole_contrec.compat import SafeCollector, quiet_recbole
from recbole_contrec.environment import device_name, package_versions
from recbole_contrec.errors import UserError
from recbole_contrec.training import checkpoint, lock
from recbole_contrec.training.averaging import WeightAverage
from recbole_contrec.training.evaluation import FullRanking
from recbole_contrec.training.identity import (
    Identity,
    check_identity,
    fingerprint_of_data,
    load_weights,
    pack_model,
    pack_other,
)
from recbole_contrec.training.stages import FinishedStage, run_stages

logger = logging.getLogger("recbole_contrec")

BEST, LAST = "best.safetensors", "last.safetensors"
BEFORE = "best.before.safetensors"  # the best of earlier epochs, until the state after this one is saved as well


class CurvePoint(NamedTuple):
    """A validation and what was spent on training and validating until then."""

    epoch: int
    seconds: float          # by the clock
    core_seconds: float     # of processor time, over all threads: not disturbed by what else the machine computes
    score: float


class RunTrainer(FullRanking):
    """Mixin over a RecBole trainer: a folder a run, safe checkpoints, resume to the same numbers, per-user ranks.

    A run's folder holds ``best.safetensors`` (the model that validated best), beside it what parts of this model export
    for other tools, ``last.safetensors`` (everything that ``--resume`` needs, after every epoch) and ``test_ranks.npz``.
    """

    resumable = True

    def __init__(self, config, model):
        super().__init__(config, model)
        self.eval_collector = SafeCollector(config)
        name = config["run_name"] or f"{config['model']}-{config['dataset']}-{get_local_time()}-seed{config['seed']}"
        self.folder = Path(config["checkpoint_dir"]) / name
        self.saved_model_file = str(self.folder / BEST)
        self.average = None
        if config["average_decay"]:
            self.average = WeightAverage(model, config["average_decay"])
            self.optimizer.register_step_post_hook(lambda *_: self.average.update())
        self.identity: Identity | None = None
        self.data: str | None = None  # fingerprint of what is read
        self.trained = False  # by an earlier run
        self.settings: dict[str, Any] = {}
        self.stages: dict[str, FinishedStage] = {}
        self.epoch_seconds: list[float] = []  # of training alone
        self.training_seconds = 0.0  # with validation and checkpoints
        self.core_seconds = 0.0  # the same in processor time
        self.curve: list[CurvePoint] = []
        self._valid_score = math.nan  # of the last validation
        self.best_epoch = -1
        self.best_is_saved = False  # by this run
        self.best_in_memory: dict[str, torch.Tensor] | None = None  # its weights
        self.refinements: list[dict[str, Any]] = []  # of identifiers, where a model improves them
        self._epoch, self._batch = 0, 0
        self._resumed: checkpoint.Checkpoint | None = None

    def bind(self, data, settings: dict[str, Any], trained: bool = False) -> "RunTrainer":
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

    # checkpoints

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        """RecBole's hook: the model that validated best so far."""
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(path.parent)
        if self.best_is_saved:
            checkpoint.keep(path, path.with_name(BEFORE))
        self.best_epoch, self.best_is_saved = epoch, True
        checkpoint.save(path, pack_model(self.model, self.identity), self._record(epoch))
        for module in self.model.modules():  # a part that other tools read says how, by the name of a folder
            for folder, write in getattr(module, "exports", dict)().items():
                checkpoint.save_folder(path.parent / folder, write)
        if verbose:
            logger.info(set_color("Saving current", "blue") + f": {path}")

    def _save_last(self, epoch, train_data):
        """Everything that a killed run needs to go on as if nothing had happened."""
        random_state, random_record = checkpoint.pack_random_state()
        tensors = {**pack_model(self.model, self.identity), **_prefixed("random", random_state)}
        tensors.update({f"generator.{name}": state.get_state() for name, state in self._generators(train_data)})
        optimizers = {}
        for name, optimizer in self._optimizers():
            packed, optimizers[name] = checkpoint.pack_optimizer(optimizer)
            tensors.update(_prefixed(f"optimizer.{name}", packed))
        if self.average is not None:
            tensors.update(_prefixed("average", self.average.average))
        score = float(self.best_valid_score)
        record = {**self._record(epoch), "optimizers": optimizers, "random": random_record,
                  "cur_step": self.cur_step, "best_valid_score": score if math.isfinite(score) else None,
                  "best_valid_result": self.best_valid_result, "best_epoch": self.best_epoch,
                  "epoch_seconds": self.epoch_seconds, "training_seconds": self.training_seconds,
                  "core_seconds": self.core_seconds, "curve": self.curve, "refinements": self.refinements,
                  "stages": {name: stage._asdict() for name, stage in self.stages.items()},
                  "train_loss": self.train_loss_dict, "loss_scale": self.scaler.state_dict() if hasattr(self, "scaler") else {},
                  "average_steps": self.average.steps if self.average else 0}
        checkpoint.save(self.folder / LAST, tensors, record)
        (self.folder / BEFORE).unlink(missing_ok=True)

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
            raise UserError(f"{path} was trained on other interactions or texts of the same users and items of "
                            f"{self.identity.dataset!r}: resume with the data of then, or train anew")
        now = {**package_versions(), "device": device_name(self.device)}
        before = {**record["versions"], "device": record.get("device", now["device"])}
        if different := [f"{name} {now.get(name)} (it was {before[name]})" for name in before if now.get(name) != before[name]]:
            logger.warning("%s goes on with %s: its numbers may not be those of an uninterrupted run", path, ", ".join(different))

    def _drop_best_of_lost_epochs(self) -> None:
        """A kill between two saves of an epoch leaves a best model that the resumed run has not come to yet."""
        best, before = Path(self.saved_model_file), self.folder / BEFORE
        if before.is_file() and (not best.is_file() or checkpoint.load(best).record["epoch"] >= self.start_epoch):
            os.replace(before, best)
        before.unlink(missing_ok=True)

    def _require_best(self) -> None:
        """The best model of the epochs before a kill is there and whole: its loss shall not be found after the training.

        Raises:
            UserError: it is missing, damaged, or of another run or epoch.
        """
        path = Path(self.saved_model_file)
        lost = f"the run in {self.folder} cannot be resumed without the best model of its epochs: train it anew"
        try:
            stored = checkpoint.load(path)
        except UserError as error:
            raise UserError(f"{error}; {lost}") from error
        check_identity(stored, self.config["model"], self.identity, path)
        if stored.record["epoch"] != self.best_epoch:
            raise UserError(f"{path} is the model of epoch {stored.record['epoch']}, and the best is that of epoch "
                            f"{self.best_epoch}: {lost}")

    def _record(self, epoch) -> dict[str, Any]:
        return {"model": self.config["model"], "dataset": self.identity.dataset, "epoch": epoch,
                "settings": self.settings, "versions": package_versions(),
                "device": device_name(self.device), "data": self.data, "other": pack_other(self.model)[1]}

    def _generators(self, train_data) -> Iterator[tuple[str, torch.Generator]]:
        """The random generators of the loaders: workers of that of validation are seeded by its own."""
        yield from _generators(train_data)
        yield from ((f"valid.{name}", generator) for name, generator in _generators(self._valid_data))

    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """Every optimizer of the trainer by attribute; RecVAE has two."""
        for name, value in vars(self).items():
            if isinstance(value, torch.optim.Optimizer):
                yield name, value

    def resume_checkpoint(self, resume_file):
        """Go on where a killed run stopped; takes the run's folder or its ``last.safetensors``.

        Raises:
            UserError: the file is no such checkpoint, or one of another model or data set; or the model's own
                training loop cannot be resumed.
        """
        path = last_checkpoint(resume_file)
        if not self.resumable:
            raise UserError(f"RecBole trains {self.config['model']} in a loop of its own, which cannot be resumed")
        lock.acquire(path.parent)
        stored = load_weights(self.model, path, self.config["model"], self.identity)
        record = stored.record
        self._compare_with(record, path)
        self.folder, self.saved_model_file = path.parent, str(path.parent / BEST)
        for name, optimizer in self._optimizers():
            checkpoint.unpack_optimizer(optimizer, stored.part(f"optimizer.{name}"), record["optimizers"][name])
        if self.average is not None:
            self.average.copy(stored.part("average"), self.average.average)
            self.average.steps = record["average_steps"]
        if record.get("loss_scale"):
            self.scaler.load_state_dict(record["loss_scale"])
        self._resumed = stored
        self.start_epoch, self.cur_step = record["epoch"] + 1, record["cur_step"]
        if record["best_valid_score"] is not None:
            self.best_valid_score = record["best_valid_score"]
        self.best_valid_result, self.best_epoch = record["best_valid_result"], record["best_epoch"]
        self.epoch_seconds, self.training_seconds = record["epoch_seconds"], record["training_seconds"]
        self.core_seconds = record["core_seconds"]
        self.curve = [CurvePoint(*point) for point in record["curve"]]
        self.refinements = record.get("refinements", [])
        self.best_is_saved = self.best_epoch >= 0
        self._drop_best_of_lost_epochs()
        if self.best_is_saved:
            self._require_best()
        self.stages = {name: FinishedStage(**stage) for name, stage in record["stages"].items()}
        self.train_loss_dict = {int(epoch): loss for epoch, loss in record["train_loss"].items()}
        logger.info("Resuming %s after epoch %d", path, record["epoch"])

    # training

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, show_progress=False, callback_fn=None):
        """Run the missing stages, then train until the epochs are over or validation stops improving.

        Returns:
            tuple: best validation score and the metrics of that epoch (None without validation data).
        """
        try:
            return self._fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        finally:
            lock.release(self.folder)

    def _fit(self, train_data, valid_data, verbose, saved, show_progress, callback_fn):
        self._begin(train_data, show_progress)
        if saved and self.epochs == 0:
            self._save_checkpoint(-1, verbose=verbose)
        validates = self.eval_step > 0 and bool(valid_data)
        stop = self.cur_step > self.stopping_step  # the run was killed after its last epoch
        for epoch in range(self.start_epoch, 0 if stop else self.epochs):
            start, start_of_cores = perf_counter(), process_time()
            self._train_and_log(train_data, epoch, verbose, show_progress)
            with self._averaged():
                if validates and (epoch + 1) % self.eval_step == 0:
                    stop = self._validate_and_log(valid_data, epoch, verbose, saved, show_progress, callback_fn)
                elif saved and not validates:
                    self._save_checkpoint(epoch, verbose=verbose)
            self.training_seconds += perf_counter() - start
            self.core_seconds += process_time() - start_of_cores
            if validates and (epoch + 1) % self.eval_step == 0:
                self.curve.append(CurvePoint(epoch, round(self.training_seconds, 2), round(self.core_seconds, 2),
                                             self._valid_score))
            if saved:
                self._save_last(epoch, train_data)
            if stop:
                if verbose:
                    logger.info("Finished training, best eval result in epoch %d", self.best_epoch)
                break
        if self.average is not None:
            self.average.keep()
        self._add_hparam_to_tensorboard(self.best_valid_score)
        return self.best_valid_score, self.best_valid_result

    def _begin(self, train_data, show_progress):
        """What comes before the first epoch of this process."""
        if self._resumed is None:
            if not self.trained:
                self._run_stages(train_data, show_progress)
            if self.average is not None:
                self.average.restart()
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        if self._resumed is not None:
            checkpoint.unpack_random_state(self._resumed.part("random"), self._resumed.record["random"])
            for name, generator in self._generators(train_data):
                if (state := self._resumed.tensors.get(f"generator.{name}")) is not None:
                    generator.set_state(state)

    def _run_stages(self, train_data, show_progress):
        if not hasattr(self.model, "stages"):
            return
        dataset = train_data.dataset
        self.stages = run_stages(self.model.stages(dataset), self.identity.with_histories(dataset.histories),
                                 Path(self.config["checkpoint_dir"]) / "stages", show_progress)

    def _averaged(self):
        """The model with the weights that count: the average where there is one."""
        return self.average.applied() if self.average is not None else nullcontext()

    def _train_epoch(self, train_data, epoch_idx, *args, **kwargs):
        """The base class's epoch, timed."""
        self._epoch, self._batch, start = epoch_idx, 0, perf_counter()
        with quiet_recbole():
            loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        self.epoch_seconds.append(perf_counter() - start)
        return loss

    def _check_nan(self, loss):
        """RecBole's hook for every batch.

        Raises:
            FloatingPointError: names the epoch and the batch.
        """
        if not torch.isfinite(loss).all():
            raise not_finite(self._epoch, self._batch, ["the loss"])
        self._batch += 1

    def _train_and_log(self, train_data, epoch, verbose, show_progress):
        start = perf_counter()
        loss = self._train_epoch(train_data, epoch, show_progress=show_progress)
        self.train_loss_dict[epoch] = sum(loss) if isinstance(loss, tuple) else loss
        if verbose:
            logger.info(self._generate_train_loss_output(epoch, start, perf_counter(), loss))
        self._add_train_loss_to_tensorboard(epoch, loss)
        self.wandblogger.log_metrics({"epoch": epoch, "train_loss": loss, "train_step": epoch}, head="train")

    def _validate_and_log(self, valid_data, epoch, verbose, saved, show_progress, callback_fn) -> bool:
        """Evaluate, keep the best model; True when it is time to stop."""
        start = perf_counter()
        score, result = self._valid_epoch(valid_data, show_progress=show_progress)
        self.best_valid_score, self.cur_step, stop, better = early_stopping(
            score, self.best_valid_score, self.cur_step, max_step=self.stopping_step, bigger=self.valid_metric_bigger)
        self._valid_score = float(score)
        if verbose:
            logger.info(set_color("epoch %d evaluating", "green") + " [" + set_color("time", "blue") + ": %.2fs, "
                        + set_color("valid_score", "blue") + ": %f]", epoch, perf_counter() - start, score)
            logger.info(set_color("valid result", "blue") + ": \n" + dict2str(result))
        self.tensorboard.add_scalar("Vaild_score", score, epoch)  # sic: the tag that RecBole's users know
        self.wandblogger.log_metrics({**result, "valid_step": epoch}, head="valid")
        if better:
            self.best_valid_result, self.best_epoch = dict(result), epoch
            if saved:
                self._save_checkpoint(epoch, verbose=verbose)
            elif self._returns_to_best:
                self.best_in_memory, self.best_is_saved = deepcopy(self.model.state_dict()), False
        if callback_fn:
            callback_fn(epoch, score)
        return stop

    # evaluation

    @torch.no_grad()
    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False, save_ranks=False):
        """Evaluate as RecBole does, after loading the best model safely.

        Args:
            save_ranks: also write the rank of every target to ``test_ranks.npz``, for paired tests between models.
        """
        if not eval_data:
            return None
        if load_best_model:
            path = Path(model_file or self.saved_model_file)
            load_weights(self.model, path, self.config["model"], self.identity)
            logger.info("Loading model structure and parameters from %s", path)
        return self._rank_all(eval_data, show_progress, save_ranks, super().evaluate)


def trainer_class(base: type) -> type:
    """A trainer for a run: :class:`RunTrainer` in front of ``base``, one of RecBole's trainers or ours.

    Trainers of RecBole with a training loop of their own keep it, and cannot be resumed.

    Raises:
        UserError: a trainer whose checkpoints cannot be kept without pickled code.
    """
    if issubclass(base, (PretrainTrainer, DecisionTreeTrainer)):
        raise UserError(f"{base.__name__}: RecBole trains this model in several runs, or outside torch, and hands it on "
                        "in pickled files; that is not supported here")
    if issubclass(base, RunTrainer):
        return base
    own_loop = base.fit is not Trainer.fit
    return type(base.__name__, (RunTrainer, base), {"fit": base.fit, "resumable": False} if own_loop else {})


def last_checkpoint(path) -> Path:
    """The checkpoint to resume from, in a run's folder or named itself.

    Raises:
        UserError: it holds a model only.
    """
    path = Path(path) / LAST if Path(path).is_dir() else Path(path)
    if "optimizers" not in checkpoint.load(path).record:
        raise UserError(f"{path} holds a model only; --resume needs the {LAST} beside it")
    return path


def not_finite(epoch: int, batch: int, terms: list[str]) -> FloatingPointError:
    """The error of a loss that is NaN or infinite."""
    return FloatingPointError(f"not finite in epoch {epoch}, batch {batch}: {', '.join(terms)}. "
                              f"Try a smaller --learning_rate or --clip_grad_norm={{'max_norm':1.0}}")


def _generators(train_data) -> Iterator[tuple[str, torch.Generator]]:
    """The random generators of a loader and of the loaders inside it (knowledge graphs have two)."""
    for name in ("", "general_dataloader", "kg_dataloader"):
        generator = getattr(getattr(train_data, name, None) if name else train_data, "generator", None)
        if isinstance(generator, torch.Generator):
            yield name or "loader", generator


def _prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
