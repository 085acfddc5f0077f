"""
recbole_contrec.training.refining_trainer
#########################################
Training in rounds: between two of them the model improves the identifiers of the items.
"""

import logging
from pathlib import Path

from recbole_contrec.training.identity import load_weights
from recbole_contrec.training.window_trainer import WindowTrainer

logger = logging.getLogger("recbole_contrec")


class RefiningTrainer(WindowTrainer):
    """A :class:`~recbole_contrec.training.window_trainer.WindowTrainer` for models with ``refine``: every ``refine_every`` epochs, and
    ``refine_rounds`` times at most, identifiers are written anew, and training goes on from the same weights.

    A refinement is taken back where no validation of the epochs after it reached the best before: the best checkpoint, its
    identifiers with it, comes back in place of a further refinement; where nothing is saved, nothing can be. What was done
    stands in ``refinements``, one record each. Models that do not improve themselves are trained as ever.
    """

    def _train_epoch(self, train_data, epoch_idx, *args, **kwargs):
        if self.config["self_improve"] and epoch_idx and epoch_idx % self.config["refine_every"] == 0:
            self._between_rounds(epoch_idx)
        return super()._train_epoch(train_data, epoch_idx, *args, **kwargs)

    def _between_rounds(self, epoch: int) -> None:
        """Judge the refinement before, then refine or take back."""
        if self.refinements and "valid_after" not in self.refinements[-1]:
            last = self.refinements[-1]
            best = max if self.valid_metric_bigger else min
            before, after = (best((point.score for point in self.curve if (point.epoch >= last["epoch"]) == later),
                                  default=None) for later in (False, True))
            if before is not None and after is not None:
                last.update(valid_before=round(before, 4), valid_after=round(after, 4), kept=True)
                if best(before, after) != after and self.best_is_saved:
                    last["kept"] = False
                    self._take_back()
                    logger.info("refinement of epoch %d taken back: validation %.4f, %.4f before", last["epoch"], after,
                                before)
                    return
        if len(self.refinements) < self.config["refine_rounds"]:
            self._refine(epoch)

    def _refine(self, epoch: int) -> None:
        training = self.model.training
        self.model.eval()
        with self._averaged():
            report = self.model.refine()
        self.model.train(training)
        self.refinements.append({"epoch": epoch, **report})
        figures = "".join(f"\n  {name:<22} {value}" for name, value in report.items())
        logger.info("refinement %d, before epoch %d:%s", len(self.refinements), epoch, figures)

    def _take_back(self) -> None:
        """Weights and identifiers of the best checkpoint, and patience as after it."""
        load_weights(self.model, Path(self.saved_model_file), self.config["model"], self.identity)
        self.optimizer.state.clear()  # moments of weights that are gone
        if self.average is not None:
            self.average.restart()
        self.cur_step = 0
