"""
recbole_contrec.training.trainer
################################
One trainer for every model of a run: RecBole's own training step or ours, the same evaluation, the same
checkpoints. :func:`trainer_class` puts :class:`RunTrainer` in front of whatever trainer class a model needs.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from recbole.trainer import Trainer
from recbole.utils import dict2str, early_stopping, set_color

from recbole_contrec import processes
from recbole_contrec.compat import quiet_recbole
from recbole_contrec.interface import ChosenOnValidation, HasStages
from recbole_contrec.settings.checks import refuse_untrainable
from recbole_contrec.storage import checkpoint, folders
from recbole_contrec.storage.progress import CurvePoint
from recbole_contrec.storage.stages import run_stages
from recbole_contrec.training.identity import load_weights, open_parts
from recbole_contrec.training.keeping import BEFORE, KeptRun
from recbole_contrec.training.shares import SharedLoss, mean_loss

logger = logging.getLogger("recbole_contrec")


class RunTrainer(KeptRun):
    """Mixin over a RecBole trainer: :class:`~recbole_contrec.training.keeping.KeptRun`, stages before training, the
    weights that count, and per-user ranks."""

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[..., Any] | None = None,
    ) -> tuple[Any, Any]:
        """Run the missing stages, then train until the epochs are over or validation stops improving.

        Returns:
            tuple: best validation score and the metrics of that epoch (None without validation data).
        """
        try:
            return self._fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        finally:
            if not self.stays_locked:
                folders.release(self.folder)

    def _fit(self, train_data, valid_data, verbose, saved, show_progress, callback_fn):
        if saved:
            self.claim_folder()
        self.begin(train_data, show_progress)
        if saved and self.epochs == 0:
            self._save_checkpoint(-1, verbose=verbose)
        validates = self.eval_step > 0 and bool(valid_data)
        stop = self.cur_step > self.stopping_step  # the run was killed after its last epoch
        for epoch in range(self.start_epoch, 0 if stop else self.epochs):
            start, start_of_cores = perf_counter(), process_time()
            validates_now = validates and (epoch + 1) % self.eval_step == 0
            self._train_and_log(train_data, epoch, verbose, show_progress)
            with self._averaged():
                if validates_now:
                    stop = self._validate_and_log(valid_data, epoch, verbose, saved, show_progress, callback_fn)
                elif saved and not validates:
                    self._save_checkpoint(epoch, verbose=verbose)
            self.progress.training_seconds += perf_counter() - start
            self.progress.core_seconds += processes.summed([process_time() - start_of_cores])[0]
            if validates_now:
                seconds = round(self.progress.training_seconds, 2), round(self.progress.core_seconds, 2)
                self.progress.curve.append(CurvePoint(epoch, *seconds, self._valid_score))
            if saved:
                self.save_state(epoch, train_data)
            if stop:
                if verbose:
                    logger.info("Finished training, best eval result in epoch %d", self.progress.best_epoch)
                break
        if self.average is not None:
            self.average.keep()
        if validates:
            self._choose_open_settings(valid_data, saved, show_progress)
        else:
            for part in open_parts(self.model):
                logger.warning(
                    "%s is left to validation, and nothing is validated: it adds nothing", part.candidates[0]
                )
        self._add_hparam_to_tensorboard(self.best_valid_score)
        return self.best_valid_score, self.best_valid_result

    def begin(self, train_data: Any, show_progress: bool = False) -> None:
        """What comes before the first epoch of this process: stages, or the state of a run that goes on."""
        if self._resumed is None:
            if not self.trained:
                self.run_stages(train_data, show_progress)
            if self.average is not None:
                self.average.restart()
        self.shard()
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        if self._resumed is not None:
            checkpoint.unpack_random_state(*self._resumed.random)
            for name, generator in self._generators(train_data):
                if (state := self._resumed.generators.get(name)) is not None:
                    generator.set_state(state)

    def shard(self) -> None:
        """From now on keep a part of the language model in each process, where that is asked for."""
        if not self.config["shard_backbone"] or self.shards is not None:
            return
        if processes.size() == 1:
            logger.warning("shard_backbone=True: this process is alone, and holds the whole language model")
            return
        self.shards = self.model.backbone.shard()
        averages = [] if self.average is None else [(self.average.parameters, self.average.average)]
        self.shards.take_over((optimizer for _, optimizer in self._optimizers()), averages)

    def run_stages(self, train_data: Any, show_progress: bool = False) -> None:
        """Give the model what it needs before training, from disk where it is there."""
        if not isinstance(self.model, HasStages):
            return
        dataset = train_data.dataset
        with processes.first_goes_first():
            self.progress.stages = run_stages(
                self.model.stages(dataset),
                self.identity.with_histories(dataset.histories),
                Path(self.config["checkpoint_dir"]) / folders.STAGES,
                show_progress,
            )

    def _averaged(self):
        """The model with the weights that count: the average where there is one."""
        return self.average.applied() if self.average is not None else nullcontext()

    def train_epoch(self, batches: Iterable[Any], epoch: int) -> Any:
        """One epoch of :meth:`fit` over some batches, without validation.

        Returns:
            the losses that the base class adds up.
        """
        return self._train_epoch(batches, epoch)

    def _train_epoch(self, train_data, epoch_idx, *args, **kwargs):
        """The base class's epoch, timed."""
        self._epoch, self._batch, start, self.begun = epoch_idx, 0, perf_counter(), True
        if processes.size() > 1:
            processes.draw_apart(self.config["seed"], epoch_idx)
        if processes.size() > 1 or self._parts > 1:
            kwargs["loss_func"] = self.shared_loss
        with quiet_recbole():
            loss = mean_loss(super()._train_epoch(train_data, epoch_idx, *args, **kwargs))
        if processes.size() > 1:
            checkpoint.unpack_random_state(*processes.from_first(checkpoint.pack_random_state))
        self.progress.epoch_seconds.append(perf_counter() - start)
        return loss

    @cached_property
    def shared_loss(self) -> SharedLoss:
        """What several processes, or several parts of a batch, minimise together."""
        return SharedLoss(self.model, self._parts, self.shards)

    @property
    def _parts(self) -> int:
        """In which a batch is computed; RecBole's own models know one."""
        return self.config["accumulate_steps"] or 1

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
        self.progress.train_loss[epoch] = sum(loss) if isinstance(loss, tuple) else loss
        if verbose:
            logger.info(self._generate_train_loss_output(epoch, start, perf_counter(), loss))
        self._add_train_loss_to_tensorboard(epoch, loss)
        self.wandblogger.log_metrics({"epoch": epoch, "train_loss": loss, "train_step": epoch}, head="train")

    def _validate_and_log(
        self,
        valid_data: Any,
        epoch: int,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callable[..., Any] | None,
    ) -> bool:
        """Evaluate, keep the best model; True when it is time to stop."""
        start = perf_counter()
        score, result = self._valid_epoch(valid_data, show_progress=show_progress)
        self.best_valid_score, self.cur_step, stop, better = early_stopping(
            score, self.best_valid_score, self.cur_step, max_step=self.stopping_step, bigger=self.valid_metric_bigger
        )
        self._valid_score = float(score)
        if verbose:
            logger.info(
                set_color("epoch %d evaluating", "green")
                + " ["
                + set_color("time", "blue")
                + ": %.2fs, "
                + set_color("valid_score", "blue")
                + ": %f]",
                epoch,
                perf_counter() - start,
                score,
            )
            logger.info(set_color("valid result", "blue") + ": \n" + dict2str(result))
        self.tensorboard.add_scalar("Vaild_score", score, epoch)  # sic: the tag that RecBole's users know
        self.wandblogger.log_metrics({**result, "valid_step": epoch}, head="valid")
        if better:
            self.best_valid_result, self.progress.best_epoch = dict(result), epoch
            if saved:
                self._save_checkpoint(epoch, verbose=verbose)
            elif self._returns_to_best or open_parts(self.model):
                self.best_in_memory, self.best_is_saved = deepcopy(self.model.state_dict()), False
        if callback_fn:
            callback_fn(epoch, score)
        return stop

    def _choose_open_settings(self, valid_data: Any, saved: bool, show_progress: bool) -> None:
        """Choose what the parts of the model leave to validation, with the best weights, and keep it with them."""
        parts = open_parts(self.model)
        if not parts:
            return
        last = None if saved or self.best_in_memory is None else deepcopy(self.model.state_dict())
        if saved:
            self.load_best()
        elif last is not None:
            self.model.load_state_dict(self.best_in_memory)
        for part in parts:
            self._choose(part, valid_data, show_progress)
        if saved:
            self._save_checkpoint(self.progress.best_epoch, verbose=False)
            if processes.is_first():
                (self.folder / BEFORE).unlink(missing_ok=True)
        elif last is not None:
            self.model.load_state_dict(last)

    def _choose(self, part: ChosenOnValidation, valid_data: Any, show_progress: bool) -> None:
        name, values = part.candidates
        found = {}
        before = checkpoint.pack_random_state()
        for value in values:
            checkpoint.unpack_random_state(*before)  # sampled items are drawn anew each time: let them be the same ones
            part.choose(value)
            found[value] = self._valid_epoch(valid_data, show_progress=show_progress)  # score, metrics
        sign = 1 if self.valid_metric_bigger else -1
        best = max(values, key=lambda value: sign * found[value][0])  # the first one of equal ones
        part.choose(best)
        self.best_valid_score, self.best_valid_result = found[best][0], dict(found[best][1])
        self.chosen[name] = {"value": best, "valid_scores": {f"{value:g}": found[value][0] for value in values}}
        self.settings = {**self.settings, name: best}
        shown = ", ".join(f"{value:g}: {score:.4f}" for value, (score, _) in found.items())
        logger.info("%s=%g, chosen on validation (%s)", name, best, shown)

    # evaluation

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
        save_ranks: bool = False,
    ) -> Any:
        """Evaluate as RecBole does, after loading the best model safely.

        Args:
            save_ranks: also write the rank of every target to ``test_ranks.npz``, for paired tests between models.
        """
        if not eval_data:
            return None
        if load_best_model:
            path = Path(model_file) if model_file else self.load_best()
            if model_file:
                load_weights(self.model, path, self.config["model"], self.identity)
            logger.info("Loading model structure and parameters from %s", path)
        return self._rank_all(eval_data, show_progress, save_ranks, super().evaluate)


def trainer_class(base: Any) -> type:
    """A trainer for a run: :class:`RunTrainer` in front of ``base``, one of RecBole's trainers or ours.

    Trainers of RecBole with a training loop of their own keep it, and cannot be resumed.

    Raises:
        UserError: a trainer whose checkpoints cannot be kept without pickled code.
    """
    refuse_untrainable(base)
    if issubclass(base, RunTrainer):
        return base
    own_loop = base.fit is not Trainer.fit
    return type(base.__name__, (RunTrainer, base), {"fit": base.fit, "resumable": False} if own_loop else {})


def not_finite(epoch: int, batch: int, terms: list[str]) -> FloatingPointError:
    """The error of a loss that is NaN or infinite."""
    return FloatingPointError(
        f"not finite in epoch {epoch}, batch {batch}: {', '.join(terms)}. "
        f"Try a smaller --learning_rate or --clip_grad_norm={{'max_norm':1.0}}"
    )
