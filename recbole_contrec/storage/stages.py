"""
recbole_contrec.storage.stages
##############################
What has to be finished before the recommender can be trained: item vectors, tokenizers. A finished stage is kept on
disk under a hash of the data and of the settings it depends on, so the next run with the same ones skips it.
"""

import hashlib
import json
import logging
import textwrap
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_contrec.errors import UserError
from recbole_contrec.files import clear_parts
from recbole_contrec.interface import Report, Stage, StageResult
from recbole_contrec.storage import checkpoint
from recbole_contrec.storage.progress import FinishedStage

logger = logging.getLogger("recbole_contrec")

__all__ = ["FinishedStage", "Report", "Stage", "StageResult", "fingerprint", "run_stages"]

FORMAT = 3  # raised whenever a stage computes something else from the same settings


def fingerprint(*arrays: np.ndarray, texts: Iterable[Iterable[str]] = ()) -> str:
    """Hash of number arrays and lists of names: the identity of a data set."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    for names in texts:
        digest.update("\0".join(map(str, names)).encode() + b"\1")
    return digest.hexdigest()


def run_stages(
    stages: Iterable[Stage], data_fingerprint: str, folder: Path, show_progress: bool = False
) -> dict[str, FinishedStage]:
    """Run what is missing, in order; a stage depends on all stages before it.

    Args:
        stages: may be a generator: the next stage is asked for when the one before has been accepted.
        data_fingerprint: of :func:`fingerprint`.
        folder: where finished stages are kept.

    Raises:
        UserError: a stage cannot be written to disk.
    """
    clear_parts(folder)
    finished, key = {}, f"{FORMAT} {data_fingerprint}"
    for stage in stages:
        key = hashlib.sha256(json.dumps([key, stage.name, stage.settings], sort_keys=True).encode()).hexdigest()
        path = Path(folder) / f"{stage.name.replace(' ', '-')}-{key[:16]}.safetensors"
        start = perf_counter()
        result = _accepted(stage, path)
        found = result is not None
        if result is None:
            with tqdm(total=1, desc=stage.name, disable=not show_progress, ncols=100, leave=False) as bar:

                def report(done: int, total: int, text: str = "", bar: Any = bar) -> None:
                    bar.total = total
                    bar.set_postfix_str(text, refresh=False)
                    bar.update(done - bar.n)

                with (
                    checkpoint.random_state_kept()
                ):  # whether a stage is done or found, the same numbers are drawn after it
                    built = stage.build(report)
            # In the form in which it would be found: sums over tensors that lie otherwise in memory are rounded
            # otherwise.
            result = StageResult(checkpoint.as_stored(built.tensors), built.report)
            checkpoint.save(
                path, result.tensors, {"stage": stage.name, "settings": stage.settings, "report": result.report}
            )
            stage.accept(result.tensors)
        finished[stage.name] = FinishedStage(perf_counter() - start, found, result.report, stage.settings)
        logger.info("%s: %.1f s%s", stage.name, finished[stage.name].seconds, _figures(result.report))
    return finished


def _accepted(stage: Stage, path: Path) -> StageResult | None:
    """The finished stage of a file, handed to the model; None where there is none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        stored = checkpoint.load(path)
        _check(stored, stage, path)
        result = StageResult(stored.tensors, stored.record["report"])
        logger.info("%s: found in %s", stage.name, path)
        stage.accept(result.tensors)
    except UserError as error:
        logger.warning("%s; the stage is done again", error)
        return None
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
        logger.warning("%s; the stage is done again", checkpoint.damaged(path, error))
        return None
    return result


def _check(stored: checkpoint.Checkpoint, stage: Stage, path: Path) -> None:
    """A file of another stage is not used, nor one whose numbers are none.

    Raises:
        UserError: says what is wrong.
    """
    settings = json.loads(json.dumps(stage.settings))
    if stored.record.get("stage") != stage.name or stored.record["settings"] != settings:
        raise UserError(f"{path} is not the stage that its name says")
    if bad := [
        name for name, tensor in stored.tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]:
        raise UserError(f"{path} holds numbers that are not finite ({bad[0]})")


def _figures(report: dict[str, Any]) -> str:
    """What a stage reports, as a few lines below its name."""
    text = ", ".join(f"{name} {_short(value)}" for name, value in report.items())
    return "".join(f"\n  {line}" for line in textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
