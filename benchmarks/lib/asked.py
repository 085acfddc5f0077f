"""
benchmarks.lib.asked
####################
What is there against what is asked for: a result is reused, and a killed run goes on, only where settings, data and
seed are the same.

Results of earlier commits say what was known then. A setting that has come since counts only where it is asked for
another value than it has by itself, or than what stood for it before. Files are compared where the result holds their
hashes; users, items and interactions of its card where it holds none.
"""

import glob
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lib.runs import ASKED, FOLDERS, PATHS, Run, read

# Settings of where and how a run is carried out, and what it prints: no number depends on them but by rounding.
NO_MATTER = {
    *PATHS,
    "gpu_id",
    "use_gpu",
    "show_progress",
    "state",
    "output",
    "run_name",
    "save_dataset",
    "save_dataloaders",
    "log_wandb",
    "wandb_project",
}
# What a setting that has come since stood for, where its default is another one.
BEFORE_IT_CAME = {"text_similarity": 0.0}
DATA_FILES = (".inter", ".item", ".user", ".kg", ".link", ".net")
OF_THE_DATA = (
    "load_col",
    "unload_col",
    "rm_dup_inter",
    "val_interval",
    "filter_inter_by_user_or_item",
    "user_inter_num_interval",
    "item_inter_num_interval",
    "benchmark_filename",
    "field_separator",
    "encoding",
)


class Asked(NamedTuple):
    """A run as it would be started now.

    Attributes:
        config: of the run.
        settings: JSON-like.
        defaults: the same where nothing is given but model, data set and seed.
        data: hashes of the files that it reads, by name.
    """

    config: Any
    settings: dict[str, Any]
    defaults: dict[str, Any]
    data: dict[str, str]


def missing(runs: Sequence[Run], data_path: str | None = None, again: bool = False) -> list[Run]:
    """Those of some runs that are not finished. All are looked at before the first one starts. Of two rows of one
    training that which is there stays, and the model, which is gone, is trained for the other one.

    Args:
        again: what is there of other settings or data is done anew; else it is an error.

    Raises:
        UserError: an unknown model, data set or setting, or a run that is there with other settings or data: says
            which.
    """
    from recbole_contrec import UserError

    todo, others = [], []
    for run in runs:
        asked = asked_for(run, data_path)
        _check_test_without_seen(run, data_path)
        there = [row for row in run.rows if row.result.is_file()]
        found = [(row.result, differences(read(row.result), asked)) for row in there]
        if run.finished and not any(different for _, different in found):
            continue
        others += [(place, different) for place, different in found if different]
        if begun := differences_of_begun(run, asked):
            others.append((run.work, begun))
        todo.append((replace(run, kept=tuple(place for place, different in found if not different)), bool(begun)))
    if others and not again:
        place, different = others[0]
        more = f", and so for {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"{place} was run with {'; '.join(different[:4])}{' ...' if len(different) > 4 else ''}{more}. Choose "
            "another --output (or --name, where there is one), or replace it with --again"
        )
    for run, anew in todo:
        if anew:
            shutil.rmtree(run.work)
    return [run for run, _ in todo]


def remember(run: Run, data_path: str | None) -> None:
    """Write into the working folder of a run what it is started with."""
    asked = asked_for(run, data_path)
    run.work.mkdir(parents=True, exist_ok=True)
    (run.work / ASKED).write_text(json.dumps({"settings": asked.settings, "data": asked.data}))


def asked_for(run: Run, data_path: str | None) -> Asked:
    """What a run would be started with.

    Raises:
        UserError: an unknown model, data set or setting.
    """
    config = _config(run, tuple(run.arguments(data_path)))
    plain = _config(
        run,
        tuple(argument for argument in run.arguments(data_path) if argument.startswith(("--seed=", "--data_path="))),
    )
    return Asked(config, _plain(config), _plain(plain), file_hashes(config, run.work))


def _check_test_without_seen(run: Run, data_path: str | None) -> None:
    """Every run is also tested without the items that were seen: what cannot be is not found after its training."""
    from recbole_contrec import UserError

    masked = replace(run, settings=(*run.settings, "--mask_seen=True"))
    try:
        _config(run, tuple(masked.arguments(data_path)))
    except UserError as error:
        raise UserError(f"the tables also have a test without seen items, which cannot be: {error}") from error


def differences(stored: dict[str, Any], asked: Asked) -> list[str]:
    """What a result, or the record of a killed run, was made with otherwise; a text for each."""
    from recbole_contrec.showing import show

    before, now = stored.get("settings") or {}, asked.settings
    found = [
        f"{key}={show(before[key])}, not {show(now[key])}"
        for key in now
        if key in before and not _alike(key, before[key], now[key]) and key not in NO_MATTER
    ]
    found += [
        f"a version without {key}, not {key}={show(now[key])}"
        for key in now
        if key not in before and now[key] != BEFORE_IT_CAME.get(key, asked.defaults.get(key)) and key not in NO_MATTER
    ]
    return found + _differences_of_data(stored, asked)


def _alike(key: str, before: Any, now: Any) -> bool:
    if key in FOLDERS and isinstance(before, str) and isinstance(now, str):
        return Path(before).name == Path(now).name
    return before == now


def differences_of_begun(run: Run, asked: Asked) -> list[str]:
    """The same for what a killed run left; none where there is nothing to go on with."""
    from recbole_contrec.storage import checkpoint

    if run.begun is None:
        return []
    try:
        stored = json.loads((run.work / ASKED).read_text())
    except (OSError, ValueError):
        stored = {"settings": checkpoint.load(run.begun).record["settings"]}
    return differences(stored, asked)


def _differences_of_data(stored: dict[str, Any], asked: Asked) -> list[str]:
    if "data" in stored:
        names = [
            name for name in {**stored["data"], **asked.data} if name in asked.data or Path(name).suffix in DATA_FILES
        ]
        return [f"another {name}" for name in names if stored["data"].get(name) != asked.data.get(name)]
    if "card" not in stored:
        return []
    card, counts = stored["card"], _counts(asked.config)
    return [f"{card[fact]} {fact}, not {count}" for fact, count in counts.items() if card.get(fact, count) != count]


def file_hashes(config, work: Path) -> dict[str, str]:
    """Hashes by name of the files of a data set, and of those that settings name, ``vectors.npy``.

    Args:
        work: folder that the run has as working directory.
    """
    folder = Path(config["data_path"])
    files = {
        path.name: path
        for path in sorted(folder.glob(f"{glob.escape(config['dataset'])}.*"))
        if path.suffix in DATA_FILES
    }
    texts = {
        key: value for key, value in _plain(config).items() if isinstance(value, str) and value and key not in PATHS
    }
    files.update({key: Path(work) / value for key, value in texts.items() if (Path(work) / value).is_file()})
    return {name: _hash(path, path.stat().st_mtime_ns, path.stat().st_size) for name, path in files.items()}


@cache
def _hash(path: Path, *_state: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


@lru_cache(maxsize=64)
def _configured(model: str, dataset: str, properties: Path | None, arguments: tuple[str, ...]):
    from recbole_contrec import Config

    return Config(model, dataset, arguments=arguments, properties=properties)


def _config(run: Run, arguments: tuple[str, ...]):
    return _configured(run.model, run.dataset, run.properties, arguments)


def _plain(config) -> dict[str, Any]:
    """Settings of a configuration as a JSON file gives them back."""
    from recbole_contrec.quick_start import settings_of

    return json.loads(json.dumps(settings_of(config)))


def _counts(config) -> dict[str, int]:
    """Users, items and interactions after filtering."""
    settings = json.dumps({name: config[name] for name in OF_THE_DATA}, default=str)
    key = config["data_path"], config["dataset"], settings
    if key not in _counted:
        _counted[key] = _count(config)
    return _counted[key]


_counted: dict[tuple, dict[str, int]] = {}


def _count(config) -> dict[str, int]:
    from recbole.data.dataset import Dataset

    from recbole_contrec.compat import quiet_recbole

    with quiet_recbole():
        dataset = Dataset(config)
    return {"users": dataset.user_num - 1, "items": dataset.item_num - 1, "interactions": dataset.inter_num}
