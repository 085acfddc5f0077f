"""
recbole_contrec.trainer
#######################
One trainer for every model of a run: RecBole's own training step or ours, the same evaluation, the same
checkpoints. :func:`trainer_class` puts :class:`RunTrainer` in front of whatever trainer class a model needs.
"""

import logging
import math
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from recbole.utils import dict2str, early_stopping, get_local_time, set_color

from recbole_contrec import checkpoint
from recbole_contrec.averaging import WeightAverage
from recbole_contrec.compat import SafeCollector, quiet_recbole
from recbole_contrec.environment import package_versions
from recbole_contrec.errors import UserError
from recbole_contrec.stages import FinishedStage, fingerprint, run_stages

logger = logging.getLogger("recbole_contrec")

BEST, LAST, RANKS = "best.safetensors", "last.safetensors", "test_ranks.npz"


class RunTrainer:
    """Mixin over a RecBole trainer: a folder a run, safe checkpoints, resume to the same numbers, per-user ranks.

    A run's folder holds ``best.safetensors`` (the model that validated best), ``last.safetensors`` (everything that
    ``--resume`` needs, after every epoch) and ``test_ranks.npz``. All that depends on the data set goes
    into the checkpoints as the lists of item and user tokens, so that a foreign one is refused.
    """

    def __init__(self, config, model):
        super().__init__(config, model)
        self.eval_collector = SafeCollector(config)
        name = config["run_name"] or f"{config['model']}-{config['dataset']}-{get_local_time()}-seed{config['seed']}"
        self.folder = Path(config["checkpoint_dir"]) / name
        self.saved_model_file = str(self.folder / BEST)
        self.average = WeightAverage(model, config["average_decay"]) if config["average_decay"] else None
        self.stages: dict[str, FinishedStage] = {}
        self.epoch_seconds: list[float] = []
        self.evaluation_speed = math.nan  # users a second in the last evaluation
        self.best_epoch = -1
        self.identity: dict[str, Any] = {}  # what a checkpoint must match, set by `bind`
        self.settings: dict[str, Any] = {}
        self.seen = None  # users x items of training and validation, where `mask_seen` asks for it
        self.ranks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def bind(self, data, settings: dict[str, Any]) -> "RunTrainer":
        """Remember the data and the settings of this run; both go into every checkpoint.

        Args:
            data: :class:`~recbole_contrec.data.loading.RunData`.
            settings: JSON-like, enough to build the configuration again.
        """
        self.identity, self.settings = dataset_identity(self.config, data.dataset), settings
        if self.config["mask_seen"]:
            self.seen = seen_items(data)
        return self

    # checkpoints

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        """RecBole's hook: the model that validated best so far."""
        path = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        checkpoint.save(path, self._model_tensors(), self._record(epoch))
        if verbose:
            logger.info(set_color("Saving current", "blue") + f": {path}")

    def _save_last(self, epoch, train_data):
        """Everything that a killed run needs to go on as if nothing had happened."""
        optimizer, optimizer_record = checkpoint.pack_optimizer(self.optimizer)
        random_state, random_record = checkpoint.pack_random_state()
        tensors = {**self._model_tensors(), **_prefixed("optimizer", optimizer), **_prefixed("random", random_state)}
        if getattr(train_data, "generator", None) is not None:
            tensors["loader"] = train_data.generator.get_state()
        if self.average is not None:
            tensors.update(_prefixed("average", self.average.average))
        record = {**self._record(epoch), "optimizer": optimizer_record, "random": random_record,
                  "cur_step": self.cur_step, "best_valid_score": float(self.best_valid_score),
                  "best_valid_result": self.best_valid_result, "best_epoch": self.best_epoch,
                  "epoch_seconds": self.epoch_seconds, "stages": {k: v._asdict() for k, v in self.stages.items()},
                  "train_loss": self.train_loss_dict, "average_steps": self.average.steps if self.average else 0}
        checkpoint.save(self.folder / LAST, tensors, record)

    def _model_tensors(self) -> dict[str, torch.Tensor]:
        """Weights, and the tensors among what RecBole calls other parameters of a model."""
        other = {name: value for name, value in (self.model.other_parameter() or {}).items() if torch.is_tensor(value)}
        return {**_prefixed("model", self.model.state_dict()), **_prefixed("other", other)}

    def _record(self, epoch) -> dict[str, Any]:
        other = {name: value for name, value in (self.model.other_parameter() or {}).items()
                 if not torch.is_tensor(value)}
        return {"model": self.config["model"], "epoch": epoch, "settings": self.settings,
                "versions": package_versions(), "other_parameter": other, **self.identity}

    def resume_checkpoint(self, resume_file):
        """Go on where a killed run stopped; takes the run's folder or its ``last.safetensors``.

        Raises:
            UserError: the file is no such checkpoint, or one of another model or data set.
        """
        path = Path(resume_file)
        path = path / LAST if path.is_dir() else path
        stored = load_weights(self.model, path, self.config["model"], self.identity)
        record = check_resumable(stored, path)
        self.folder, self.saved_model_file = path.parent, str(path.parent / BEST)
        checkpoint.unpack_optimizer(self.optimizer, stored.part("optimizer"), record["optimizer"])
        if self.average is not None:
            self.average.copy(stored.part("average"), self.average.average)
            self.average.steps = record["average_steps"]
        self._random_state = stored.part("random"), record["random"]
        self._loader_state = stored.tensors.get("loader")
        self.start_epoch = record["epoch"] + 1
        self.cur_step, self.best_valid_score = record["cur_step"], record["best_valid_score"]
        self.best_valid_result, self.best_epoch = record["best_valid_result"], record["best_epoch"]
        self.epoch_seconds = record["epoch_seconds"]
        self.stages = {name: FinishedStage(**stage) for name, stage in record["stages"].items()}
        self.train_loss_dict = {int(epoch): loss for epoch, loss in record["train_loss"].items()}
        logger.info("Resuming %s after epoch %d", path, record["epoch"])

    def _restore_random_state(self, train_data):
        if self.start_epoch and hasattr(self, "_random_state"):
            checkpoint.unpack_random_state(*self._random_state)
            if self._loader_state is not None:
                train_data.generator.set_state(self._loader_state)

    # training

    def fit(self, train_data, valid_data=None, verbose=True, saved=True, show_progress=False, callback_fn=None):
        """Run the missing stages, then train until the epochs are over or validation stops improving.

        Returns:
            tuple: best validation score and the metrics of that epoch (None without validation data).
        """
        if not self.start_epoch:
            self._run_stages(train_data, show_progress)
            if self.average is not None:
                self.average.restart()
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        self._restore_random_state(train_data)

        stop = self.cur_step > self.stopping_step  # the run was killed after its last epoch
        for epoch in range(self.start_epoch, 0 if stop else self.epochs):
            self._train_and_log(train_data, epoch, verbose, show_progress)
            if self.eval_step > 0 and valid_data and (epoch + 1) % self.eval_step == 0:
                with self._averaged():
                    stop = self._validate_and_log(valid_data, epoch, verbose, saved, show_progress, callback_fn)
            elif saved and not (self.eval_step > 0 and valid_data):
                with self._averaged():
                    self._save_checkpoint(epoch, verbose=verbose)
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

    def _averaged(self):
        """The model with the weights that count: the average where there is one."""
        return self.average.applied() if self.average is not None else nullcontext()

    def _run_stages(self, train_data, show_progress):
        if not hasattr(self.model, "stages"):
            return
        dataset = train_data.dataset
        identity = fingerprint(*dataset.histories, texts=(self.identity.get("items", ()),))
        self.stages = run_stages(self.model.stages(dataset), identity,
                                 Path(self.config["checkpoint_dir"]) / "stages", show_progress)

    def _train_and_log(self, train_data, epoch, verbose, show_progress):
        start = perf_counter()
        with quiet_recbole():
            loss = self._train_epoch(train_data, epoch, show_progress=show_progress)
        self.epoch_seconds.append(perf_counter() - start)
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
        self.ranks = [] if save_ranks and isinstance(eval_data, FullSortEvalDataLoader) else None
        start = perf_counter()
        result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        self.evaluation_speed = eval_data.sample_size / (perf_counter() - start)
        if self.ranks is not None:
            self._write_ranks(eval_data.dataset)
        return result

    def _full_sort_batch_eval(self, batched_data):
        """RecBole's scoring of a batch under one rule for seen items, and the ranks of the targets."""
        interaction, history, positive_u, positive_i = batched_data
        if self.config["mask_seen"] is False:
            history = None
        elif self.seen is not None:
            history = self._seen_by(interaction[self.config["USER_ID_FIELD"]], positive_u, positive_i)
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(
            (interaction, history, positive_u, positive_i))
        if self.ranks is not None:
            rows, items = positive_u.to(scores.device), positive_i.to(scores.device)
            own = scores[rows, items]
            rank = 1 + (scores[rows] > own[:, None]).sum(1)
            users = interaction[self.config["USER_ID_FIELD"]].cpu().numpy()
            self.ranks.append((users[positive_u.numpy()], positive_i.numpy(), rank.cpu().numpy()))
        return interaction, scores, positive_u, positive_i

    def _seen_by(self, users, positive_u, positive_i):
        """Row and item of what the users of a batch have seen; a target seen before stays in the ranking."""
        rows, items = self.seen[users.cpu().numpy()].nonzero()
        n_items = self.seen.shape[1]
        targets = positive_u.numpy() * n_items + positive_i.numpy()
        masked = ~np.isin(rows.astype(np.int64) * n_items + items, targets)
        return torch.from_numpy(rows[masked]).long(), torch.from_numpy(items[masked]).long()

    def _write_ranks(self, dataset):
        users, items, ranks = (np.concatenate(column) for column in zip(*self.ranks))
        self.ranks = None
        self.folder.mkdir(parents=True, exist_ok=True)
        np.savez(self.folder / RANKS, user=np.asarray(dataset.id2token(dataset.uid_field, users), dtype=str),
                 item=np.asarray(dataset.id2token(dataset.iid_field, items), dtype=str), rank=ranks)


def trainer_class(base: type) -> type:
    """A trainer for a run: :class:`RunTrainer` in front of ``base``, one of RecBole's trainers or ours.

    Trainers of RecBole with a training loop of their own (several stages, no gradient) keep it.
    """
    if issubclass(base, RunTrainer):
        return base
    own_loop = base.fit is not Trainer.fit
    return type(base.__name__, (RunTrainer, base), {"fit": base.fit} if own_loop else {})


def load_weights(model, path: Path, name: str, identity: dict) -> checkpoint.Checkpoint:
    """Put the weights of a checkpoint into a model.

    Args:
        name: of the model, as it must stand in the checkpoint.
        identity: of :func:`dataset_identity`, likewise.

    Raises:
        UserError: no such checkpoint, or one of another model, another data set, or another size.
    """
    stored = checkpoint.load(path)
    check_identity(stored.record, name, identity, path)
    try:
        model.load_state_dict(stored.part("model"))
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the model as configured: {str(error).splitlines()[-1].strip()}") from error
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    other = {name: tensor.to(device) for name, tensor in stored.part("other").items()}
    model.load_other_parameter({**stored.record["other_parameter"], **other})
    return stored


def check_resumable(stored: checkpoint.Checkpoint, path: Path) -> dict[str, Any]:
    """The record of a checkpoint that training can go on from.

    Raises:
        UserError: it holds a model only.
    """
    if "optimizer" not in stored.record:
        raise UserError(f"{path} holds a model only; --resume needs the {LAST} beside it")
    return stored.record


def dataset_identity(config, dataset) -> dict[str, Any]:
    """The token lists of a data set: two data sets with the same ones number items and users alike."""
    return {"dataset": config["dataset"],
            "items": [str(token) for token in dataset.field2id_token[dataset.iid_field]],
            "users": [str(token) for token in dataset.field2id_token[dataset.uid_field]]}


def check_identity(record: dict, model: str, identity: dict, path: Path) -> None:
    """Refuse a checkpoint of another model or data set.

    Raises:
        UserError: says what differs.
    """
    if record.get("model") != model:
        raise UserError(f"{path} is a checkpoint of {record.get('model')}, not of {model}: use --model={record.get('model')}")
    for part, what in (("items", "items"), ("users", "users")):
        if identity and record.get(part) != identity[part]:
            raise UserError(f"{path} was trained on {record.get('dataset')!r} with {len(record.get(part) or ()) - 1} "
                            f"{what}; these are {len(identity[part]) - 1} {what} of {identity['dataset']!r}: "
                            f"use the same data and filters")


def seen_items(data) -> sp.csr_matrix:
    """Users x items of the training and validation interactions [U, N], for ``mask_seen=True``."""
    valid = data.valid.dataset.inter_feat
    users, items = (valid[field].numpy() for field in (data.dataset.uid_field, data.dataset.iid_field))
    validation = sp.coo_matrix((np.ones(len(users)), (users, items)), shape=(data.dataset.user_num, data.dataset.item_num))
    return ((data.train.dataset.inter_matrix(form="csr") + validation.tocsr()) > 0).astype(np.int8)


def _prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
