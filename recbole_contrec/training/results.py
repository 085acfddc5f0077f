"""
recbole_contrec.training.results
################################
What a finished run says, on screen and in its JSON file.
"""

import json
import logging
import math
from pathlib import Path
from typing import Any

from recbole.utils import dict2str, set_color

from recbole_contrec.environment import peak_memory
from recbole_contrec.errors import UserError
from recbole_contrec.files import write_whole
from recbole_contrec.training.card import card_lines

logger = logging.getLogger("recbole_contrec")


def outcome(trainer, best, tested, fit_seconds: float, test_seconds: float) -> dict[str, Any]:
    """Metrics and seconds of a run, JSON-like.

    Args:
        trainer: after training and testing.
        best: what ``fit`` returned: the best validation score and the metrics of that epoch.
        tested: what ``evaluate`` returned.
        fit_seconds, test_seconds: by the clock of this process; a resumed run counts its earlier epochs as well.
    """
    score, metrics = best
    epochs = len(trainer.epoch_seconds)
    return {
        "best_valid_score": float(score) if math.isfinite(score) else None,
        "best_valid_result": _floats(metrics),
        "test_result": _floats(tested),
        "best_epoch": trainer.best_epoch,
        "epochs": epochs,
        "curve": [point._asdict() for point in trainer.curve],
        "refinements": trainer.refinements,
        "seconds": {
            **{name: round(stage.seconds, 2) for name, stage in trainer.stages.items()},
            "training": round(trainer.training_seconds or fit_seconds, 2),
            "epoch": round(sum(trainer.epoch_seconds) / max(epochs, 1), 3),
            "test": round(test_seconds, 2),
        },
        "stages": {name: stage._asdict() for name, stage in trainer.stages.items()},
    }


def write_json(path: Path, content: dict) -> None:
    """Write a file that appears when it is complete.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def log_result(result: dict[str, Any]) -> None:
    """The card, the metrics and the next step, for the log."""
    checkpoint_path = result["checkpoint"]
    logger.info(set_color("protocol card", "blue") + "\n" + "\n".join(card_lines(result["card"])))
    logger.info(
        set_color("best valid", "yellow")
        + f" (epoch {result['best_epoch']}):\n"
        + (dict2str(result["best_valid_result"]) if result["best_valid_result"] else "none")
    )
    logger.info(set_color("test result", "yellow") + ":\n" + dict2str(result["test_result"]))
    logger.info("seconds: %s; peak memory %d MiB", result["seconds"], peak_memory() / 2**20)
    if checkpoint_path:
        logger.info(
            "checkpoint: %s\nrecommendations from it:\n    python -m recbole_contrec recommend "
            "--checkpoint=%s --users=ID,ID --k=10",
            checkpoint_path,
            checkpoint_path,
        )


def _floats(result) -> dict[str, float] | None:
    return None if result is None else {name: float(value) for name, value in result.items()}
