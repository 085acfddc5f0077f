"""
recbole_contrec.training.refining_trainer
#########################################
Training in rounds: between two of them the model improves the semantic ids of the items.
"""

import logging
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

from recbole_contrec import processes
from recbole_contrec.interface import Refined
from recbole_contrec.training.window_trainer import WindowTrainer

logger = logging.getLogger("recbole_contrec")


class RefiningTrainer(WindowTrainer):
    """A :class:`~recbole_contrec.training.window_trainer.WindowTrainer` for models that refine their semantic ids
    (:class:`~recbole_contrec.interface.RefinesSemanticIds`): every ``refine_every`` epochs, and ``refine_rounds`` times
    at most, semantic ids are made anew, and training goes on with the same model.

    A refinement is validated at once, and taken back where that costs more than ``refine_tolerance``. It is taken back
    later where no validation of the ``refine_every`` epochs after it reached the best before: the best model, its
    semantic ids with it, comes back in place of a further refinement. Training goes on between the two, so the later
    test finds what spoils a model for good, not what merely slows it down. What was done stands in ``refinements``, one
    record each. Models with ``self_improve: False`` are trained as ever.

    Where semantic ids are made of what the model has learned (``refine_from: histories``), all of them change, and the
    vectors of their codes with them. Training then goes on from the averaged weights, which these were made of and fit.
    """

    @property
    def returns_to_best(self) -> bool:
        """Whether the best model is kept in memory where no checkpoints are wanted."""
        return bool(self.config["self_improve"])

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> tuple[float, ...]:
        if self.config["self_improve"] and epoch_idx and epoch_idx % self.config["refine_every"] == 0:
            self.between_rounds(epoch_idx, train_data)
        return super()._train_epoch(train_data, epoch_idx, *args, **kwargs)

    def between_rounds(self, epoch: int, train_data: Any) -> None:
        """Judge the refinement before, then refine or take back."""
        if self.progress.refinements and "kept" not in self.progress.refinements[-1]:
            last = self.progress.refinements[-1]
            best = max if self.valid_metric_bigger else min
            before, after = (
                best(
                    (point.score for point in self.progress.curve if (point.epoch >= last["epoch"]) == later),
                    default=None,
                )
                for later in (False, True)
            )
            if before is not None and after is not None:
                last.update(
                    valid_before=round(before, 4), valid_after=round(after, 4), kept=best(before, after) == after
                )
                if not last["kept"]:
                    self.take_back()
                    logger.info(
                        "refinement of epoch %d taken back: validation %.4f, %.4f before", last["epoch"], after, before
                    )
                    return
        if sum("failed" not in record for record in self.progress.refinements) < self.config["refine_rounds"]:
            self.refine(epoch, train_data)

    def refine(self, epoch: int, train_data: Any) -> None:
        before = self.progress.curve[-1].score if self.progress.curve else None  # None where nothing is validated
        training = self.model.training
        self.model.eval()
        train_data.set_epoch(epoch)
        with self._averaged():
            refined = processes.from_first(lambda: self.model.refine(batch.to(self.device) for batch in train_data))
        record = {"epoch": epoch, **refined.report}
        if "failed" in record:
            logger.warning("semantic ids stay as they are: %s", record["failed"])
            record["kept"] = False
        else:
            self.adopt(refined, before, record)
        self.model.train(training)
        self.progress.refinements.append(record)
        if "kept" not in record:
            self.cur_step = 0  # patience to judge it
        figures = "".join(f"\n  {name:<22} {value}" for name, value in record.items())
        logger.info("refinement %d, before epoch %d:%s", len(self.progress.refinements), epoch, figures)

    def adopt(self, refined: Refined, before: float | None, record: dict) -> None:
        """Take over semantic ids, unless that costs too much at once; ``before`` is the last validation, or None."""
        own, anew = deepcopy(self.model.state_dict()), refined.vectors is not None
        if anew and self.average is not None:
            self.average.keep()
        self.model.adopt(refined)
        if before is not None:
            with nullcontext() if anew else self._averaged():
                at_once = float(self._valid_epoch(self.valid_data)[0])
            record["valid_at_once"] = round(at_once, 4)
            if self._costs_too_much(before, at_once):
                self.model.load_state_dict(own)
                record.update(valid_before=round(before, 4), valid_after=record["valid_at_once"], kept=False)
        if anew and "kept" not in record:
            self._forget_steps()

    def _costs_too_much(self, before: float, at_once: float) -> bool:
        tolerance, lost = (
            self.config["refine_tolerance"],
            before - at_once if self.valid_metric_bigger else at_once - before,
        )
        return tolerance is not None and lost > tolerance * abs(before)

    def take_back(self) -> None:
        """Weights and semantic ids of the best model, and patience as after it."""
        if self.best_is_saved:
            self.load_best()
        else:
            self.model.load_state_dict(self.best_in_memory)
        self._forget_steps()
        self.cur_step = 0

    def _forget_steps(self) -> None:
        """Moments and the average of weights that are gone."""
        self.optimizer.state.clear()
        if self.average is not None:
            self.average.restart()
