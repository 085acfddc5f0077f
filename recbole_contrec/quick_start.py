"""
recbole_contrec.quick_start
###########################
Train, evaluate and load a model: the functions that the command line calls. They take the place of
``recbole.quick_start``, which needs ray.
"""

import json
import logging
import os
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Sequence

from recbole.utils import dict2str, get_trainer, init_logger, init_seed, set_color

from recbole_contrec import checkpoint
from recbole_contrec.card import card_lines, protocol_card
from recbole_contrec.config import Config
from recbole_contrec.data.loading import RunData, load_data
from recbole_contrec.data.prepare import known_datasets, prepare
from recbole_contrec.environment import peak_memory
from recbole_contrec.errors import UserError
from recbole_contrec.settings import parse_arguments, read_yaml
from recbole_contrec.trainer import BEST, trainer_class

logger = logging.getLogger("recbole_contrec")


class LoadedRun(NamedTuple):
    """A trained model and everything it was trained on."""

    config: Config
    model: Any
    data: RunData
    trainer: Any


def run(model: str | None = None, dataset: str | None = None, config_file_list: Sequence[str] = (),
        config_dict: dict | None = None, arguments: Sequence[str] = (), properties: str | None = None,
        resume: str | None = None, saved: bool = True) -> dict[str, Any]:
    """Train a model and test the epoch that validated best.

    Args:
        model: any model of this package, of a ``properties/`` folder or of RecBole.
        dataset: name of the data set.
        config_file_list: YAML files; ``config_dict`` goes before them, ``arguments`` before both.
        arguments: settings as on the command line, ``["--epochs=3"]``.
        properties: a folder with ``model/*.yaml`` and ``dataset/*.yaml`` of your own.
        resume: folder of a killed run, to go on with.
        saved: keep checkpoints; without them the last epoch is tested instead of the best.

    Returns:
        dict: ``card``, ``best_valid_score``, ``best_valid_result``, ``test_result``, ``seconds``, ``stages``,
        ``checkpoint``, ``settings``; JSON-like.

    Raises:
        UserError: whatever the user can mend; nothing has been written by then.
    """
    config = Config(model, dataset, list(config_file_list), config_dict, arguments, properties)
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    # Logs and checkpoints begin with the trainer: whatever is wrong with data or settings leaves nothing behind.
    trainer = assemble(config, data, log=True).trainer
    logger.info(data.dataset)
    logger.info("%s: %s of %s parameters are trained", config["model"],
                *(f"{sum(p.numel() for p in trainer.model.parameters() if p.requires_grad or every):,}"
                  for every in (False, True)))
    if resume:
        trainer.resume_checkpoint(resume)

    start = perf_counter()
    best_score, best_result = trainer.fit(data.train, data.valid, saved=saved, show_progress=config["show_progress"])
    trained = perf_counter()
    test_result = trainer.evaluate(data.test, load_best_model=saved, show_progress=config["show_progress"],
                                   save_ranks=saved)
    seconds = {**{name: round(stage.seconds, 2) for name, stage in trainer.stages.items()},
               "training": round(trained - start - sum(stage.seconds for stage in trainer.stages.values()), 2),
               "epoch": round(sum(trainer.epoch_seconds) / max(len(trainer.epoch_seconds), 1), 3),
               "test": round(perf_counter() - trained, 2)}
    result = {
        "card": protocol_card(config, data, trainer),
        "best_valid_score": float(best_score), "best_valid_result": _plain(best_result),
        "test_result": _plain(test_result), "best_epoch": trainer.best_epoch, "epochs": len(trainer.epoch_seconds),
        "seconds": seconds, "stages": {name: stage._asdict() for name, stage in trainer.stages.items()},
        "checkpoint": str(trainer.saved_model_file) if saved else None,
        "settings": settings_of(config),
    }
    _log_result(result)
    for path in ([trainer.folder / "result.json"] if saved else []) + ([config["output"]] if config["output"] else []):
        write_json(Path(path), result)
    return result


def load_data_and_model(checkpoint_path: str, arguments: Sequence[str] = (), properties: str | None = None) -> LoadedRun:
    """Rebuild a trained model with its data.

    Args:
        checkpoint_path: a checkpoint, or the folder of a run (its best model is taken).
        arguments: settings to change, e.g. ``["--data_path=elsewhere"]``.

    Raises:
        UserError: no such checkpoint, or the data are not those it was trained on.
    """
    path = Path(checkpoint_path)
    path = path / BEST if path.is_dir() else path
    record = checkpoint.load(path).record
    if "settings" not in record:
        raise UserError(f"{path} holds no model; give the {BEST} of a run's folder")
    config = Config(record["model"], record["dataset"], config_dict=record["settings"], arguments=arguments,
                    properties=properties)
    init_seed(config["seed"], config["reproducibility"])
    loaded = assemble(config, load_data(config))
    loaded.trainer.load_model(path)
    loaded.model.eval()
    return loaded


def fetch_missing_data(dataset: str, config_file_list: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
    """Download and convert a known public data set that is not in ``data_path`` yet; others are left alone.

    Raises:
        PrepareError: without a network, says which file to put where.
    """
    paths = [read_yaml(Path(file)).get("data_path") for file in config_file_list]
    paths += [parse_arguments([argument])["data_path"] for argument in arguments
              if argument.startswith("--data_path=")]
    data_path = next((path for path in reversed(paths) if path), "dataset")
    if dataset in known_datasets() and not (Path(data_path) / dataset).exists():
        logger.info("%s is not in %s: fetching it", dataset, data_path)
        prepare(dataset, data_path)


def objective_function(config_dict: dict | None = None, config_file_list: Sequence[str] = (), saved: bool = False
                       ) -> dict[str, Any]:
    """What RecBole's ``HyperTuning`` calls: a run as (best validation score, its direction, results)."""
    config = Config(config_dict=config_dict, config_file_list=list(config_file_list))
    result = run(config_dict=config_dict, config_file_list=config_file_list, saved=saved)
    return {"model": config["model"], "best_valid_score": result["best_valid_score"],
            "valid_score_bigger": config["valid_metric_bigger"], "best_valid_result": result["best_valid_result"],
            "test_result": result["test_result"]}


def settings_of(config) -> dict[str, Any]:
    """The settings of a run, JSON-like, enough to build its configuration again from any working directory."""
    record = {key: value for key, value in config.to_record().items() if key not in ("output", "run_name")}
    return {**record, "data_path": str(Path(config["data_path"]).resolve().parent)}


def write_json(path: Path, content: dict) -> None:
    """Write to a temporary name, then rename."""
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def assemble(config, data: RunData, log: bool = False) -> LoadedRun:
    """Model and trainer for some data, not trained yet.

    Args:
        log: also start RecBole's log, once the model stands.

    Raises:
        UserError: settings that the model cannot be built with.
    """
    init_seed(config["seed"], config["reproducibility"])
    try:
        model = config.model_class(config, data.train.dataset).to(config["device"])
    except ValueError as error:
        raise UserError(f"{config['model']}: {error}") from error
    if log:
        _start_logging(config)
    base = config.entry.trainer_class or get_trainer(config["MODEL_TYPE"], config.entry.recbole_name or config["model"])
    trainer = trainer_class(base)(config, model).bind(data, settings_of(config))
    return LoadedRun(config, model, data, trainer)


def _start_logging(config) -> None:
    """RecBole's logger; ours writes to the same places."""
    try:
        init_logger(config)
    except OSError as error:
        raise UserError(f"cannot write the log {error.filename}: {error.strerror}. Runs write ./log, ./log_tensorboard "
                        "and --checkpoint_dir; choose another working directory") from error
    ours, root = logging.getLogger("recbole_contrec"), logging.getLogger()
    ours.handlers, ours.propagate = [], True
    ours.setLevel(root.level)


def _log_result(result: dict[str, Any]) -> None:
    checkpoint_path = result["checkpoint"]
    logger.info(set_color("protocol card", "blue") + "\n" + "\n".join(card_lines(result["card"])))
    logger.info(set_color("best valid", "yellow") + f" (epoch {result['best_epoch']}):\n"
                + (dict2str(result["best_valid_result"]) if result["best_valid_result"] else "none"))
    logger.info(set_color("test result", "yellow") + ":\n" + dict2str(result["test_result"]))
    logger.info("seconds: %s; peak memory %d MiB", result["seconds"], peak_memory() / 2 ** 20)
    if checkpoint_path:
        logger.info("checkpoint: %s\nrecommendations from it:\n    python run_recbole_contrec.py recommend "
                    "--checkpoint=%s --users=ID,ID --k=10", checkpoint_path, checkpoint_path)


def _plain(result) -> dict[str, float] | None:
    return None if result is None else {name: float(value) for name, value in result.items()}
