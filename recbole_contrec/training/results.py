"""
recbole_contrec.training.results
################################
What a finished run says in its JSON file.
"""

import json
import math
from pathlib import Path
from typing import Any

from recbole_contrec.errors import UserError
from recbole_contrec.files import write_whole
from recbole_contrec.storage.progress import Progress


def outcome(trainer: Any, best: Any, tested: Any, fit_seconds: float, test_seconds: float) -> dict[str, Any]:
    """Metrics and seconds of a run, JSON-like.

    Args:
        trainer: after training and testing.
        best: what ``fit`` returned: the best validation score and the metrics of that epoch.
        tested: what ``evaluate`` returned.
        fit_seconds, test_seconds: by the clock of this process; a resumed run counts its earlier epochs as well.
    """
    score, metrics = best
    progress: Progress = trainer.progress
    epochs = len(progress.epoch_seconds)
    return {
        "best_valid_score": float(score) if math.isfinite(score) else None,
        "best_valid_result": _floats(metrics),
        "test_result": _floats(tested),
        "best_epoch": progress.best_epoch,
        "chosen_on_validation": trainer.chosen,
        "epochs": epochs,
        "curve": [point._asdict() for point in progress.curve],
        "refinements": progress.refinements,
        "seconds": {
            **{name: round(stage.seconds, 2) for name, stage in progress.stages.items()},
            "training": round(progress.training_seconds or fit_seconds, 2),
            "epoch": round(sum(progress.epoch_seconds) / max(epochs, 1), 3),
            "test": round(test_seconds, 2),
        },
        "stages": {
            name: {"seconds": stage.seconds, "found_on_disk": stage.found_on_disk, "report": stage.report}
            for name, stage in progress.stages.items()
        },
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


def _floats(result: Any) -> dict[str, float] | None:
    return None if result is None else {name: float(value) for name, value in result.items()}
