"""
recbole_contrec.training.start
##############################
The start of a run: what it needs is there, its log and folder are its own, and nothing of it stays where it fails
before the first epoch.
"""

import logging
import os
from pathlib import Path
from typing import Any

from recbole.utils import init_logger
from torch import nn

from recbole_contrec import processes
from recbole_contrec.compat import silence_tensorboard
from recbole_contrec.errors import UserError, bounded, shown
from recbole_contrec.files import check_file, check_folder
from recbole_contrec.packages import imported_by, require
from recbole_contrec.settings.registry import recbole_source
from recbole_contrec.showing import show
from recbole_contrec.storage import folders, lock
from recbole_contrec.training.evaluation import RANKS
from recbole_contrec.training.keeping import BEFORE, BEST, LAST, default_name

LOG, TENSORBOARD = Path("log"), Path("log_tensorboard")  # where RecBole puts them

_handlers: list[logging.Handler] = []  # of the run before, in this process


class Started:
    """A run between its checks and its end. As a context manager it takes back what was written if the run fails before
    its first epoch.

    Args:
        config: of the run; ``run_name`` becomes the name of the folder that was claimed, so that logs differ as well.

    Attributes:
        folder: of the run, where it has one.
        claimed: whether it is this run's own.
        trainer: of the run, once it is made.
    """

    def __init__(self, config: Any):
        self.config = config
        self.folder: Path | None = None
        self.claimed = False
        self.trainer: Any = None
        self._log: Path | None = None

    def claim(self) -> None:
        """Make the folder of the run.

        Raises:
            UserError: another run has it, or it cannot be made.
        """
        self.folder = folders.claim(
            Path(self.config["checkpoint_dir"]), self.config["run_name"], default_name(self.config)
        )
        self.claimed = True
        self.config["run_name"] = self.folder.name

    def log(self) -> None:
        """RecBole's log, to the screen and to a file of this run; our messages go to the same places.

        Raises:
            UserError: log or TensorBoard's folder cannot be written.
        """
        if not processes.is_first():
            silence_tensorboard()
            return
        name = f"{default_name(self.config)}-123456.log"
        check_file(LOG / self.config["model"] / name, "working directory")
        check_folder(TENSORBOARD / name, "working directory")
        root, ours = logging.getLogger(), logging.getLogger("recbole_contrec")
        others = [handler for handler in root.handlers if handler not in _handlers]
        for handler in _handlers:
            handler.close()
        root.handlers = []  # RecBole's logger sets itself up only where nobody else has
        try:
            init_logger(self.config)
        except OSError as error:
            raise UserError(
                f"cannot write the log {error.filename}: {error.strerror}. Runs write ./log, ./log_tensorboard "
                "and --checkpoint_dir; choose another working directory"
            ) from error
        finally:
            _handlers[:] = root.handlers
            root.handlers = root.handlers + others
        self._log = next(Path(handler.baseFilename) for handler in _handlers if hasattr(handler, "baseFilename"))
        ours.handlers, ours.propagate = [], True
        ours.setLevel(root.level)

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if self.claimed and self.folder is not None:
            folders.release(self.folder)
        elif self.folder is not None:
            lock.release(self.folder)
        if error is not None and (self.trainer is None or not self.trainer.begun):
            self._take_back()

    def _take_back(self) -> None:
        """The log, and what TensorBoard writes for it in this process."""
        if self._log is None:
            return
        for handler in _handlers:
            handler.close()
            logging.getLogger().removeHandler(handler)
        _handlers.clear()
        board = TENSORBOARD / self._log.name.split(".")[0]  # as RecBole names it
        for path in (self._log, *board.glob(f"events.*.{os.getpid()}.*")):
            path.unlink(missing_ok=True)
        for folder in (self._log.parent, LOG, board, TENSORBOARD):
            try:
                folder.rmdir()
            except OSError:  # others have theirs in it
                continue


def check_places(config: Any, claims: bool) -> None:
    """What a run shall write can be written: asked before data are read.

    Args:
        config: reads ``run_name``, ``checkpoint_dir`` and ``output``.
        claims: whether the run makes a folder of its own.

    Raises:
        UserError: names the setting.
    """
    name = config["run_name"] or default_name(config)
    if claims and config["run_name"] is not None:
        folders.check_run_name(config["run_name"])
        if not folders.free(Path(config["checkpoint_dir"]) / config["run_name"]):
            raise folders.taken(Path(config["checkpoint_dir"]) / config["run_name"])
    check_folder(config["checkpoint_dir"], "--checkpoint_dir")
    check_folder(
        Path(config["checkpoint_dir"]) / name, "--checkpoint_dir" if config["run_name"] is None else "--run_name"
    )
    check_folder(Path(config["checkpoint_dir"]) / folders.STAGES, "--checkpoint_dir")
    if config["output"] is not None:
        check_file(config["output"], "--output")
        _check_output(Path(config["output"]), Path(config["checkpoint_dir"]) / name)


def _check_output(output: Path, folder: Path) -> None:
    """The result of a run is written last, and over nothing of the run's own.

    Raises:
        UserError: a folder that the run will make, or a file that it will write.
    """
    output = output.resolve()
    places = [LOG.resolve(), TENSORBOARD.resolve(), folder.resolve(), (folder.parent / folders.STAGES).resolve()]
    if any(output in (place, *place.parents) for place in places):
        raise UserError(f"cannot write {output}: the run makes a folder of this name; choose another --output")
    if output.parent == folder.resolve() and output.name in (BEST, BEFORE, LAST, RANKS):
        raise UserError(f"cannot write {output}: the run keeps its {output.name} there; choose another --output")


def check_packages(config: Any) -> None:
    """What the settings and RecBole's model need is installed: RecBole looks in the middle of training.

    Raises:
        UserError: names the package and how to install it.
    """
    if config["log_wandb"]:
        require("wandb", f"log_wandb={config['log_wandb']}")
    if name := config.entry.recbole_name:
        for package in imported_by(recbole_source(name)):
            require(package, f"RecBole's {name}")


def check_optimizer(config: Any, model: nn.Module) -> None:
    """SparseAdam takes sparse gradients only, and no weight decay: it finds out in the first step, and never.

    Raises:
        UserError: says what the model or the settings have instead.
    """
    if config["learner"] != "sparse_adam":
        return
    sparse = {id(module.weight) for module in model.modules() if getattr(module, "sparse", False) is True}
    dense = [name for name, part in model.named_parameters() if part.requires_grad and id(part) not in sparse]
    if dense:
        raise UserError(
            f"learner=sparse_adam: {config['model']} has no sparse gradients ({shown(dense[0])} and "
            f"{len(dense) - 1} others): take adam"
        )
    if config["weight_decay"]:
        raise UserError(f"weight_decay={config['weight_decay']}: sparse_adam has none; leave it at 0")


def cannot_be_built(config: Any, error: Exception) -> UserError:
    """What stands in the way of a model of RecBole's, whose settings have few bounds: the complaint and what the user
    set."""
    own = [f"{key}={show(value)}" for key, value in config.external_config_dict.items() if key in config.entry.values]
    text = " ".join(str(error).split())
    return UserError(
        f"{config['model']} cannot be built with {', '.join(own) or 'these settings'}: "
        f"{bounded(text, 300) or type(error).__name__} (--debug shows where)"
    )
