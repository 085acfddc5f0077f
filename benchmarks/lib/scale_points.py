"""
benchmarks.lib.scale_points
###########################
One size of data for :mod:`benchmarks.scale`: every stage of a run, from reading to recommending.

Reading -> stages before training -> from there, side by side, an epoch, an evaluation and recommendations, each timed
in part and scaled up.
"""

import json
from argparse import Namespace
from functools import partial
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

from recbole.data.dataloader import FullSortEvalDataLoader

from benchmarks.lib.measuring import time_training
from benchmarks.lib.synthetic import write_atomic_files, zipf_histories
from benchmarks.lib.watched import Limits, watched
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import LoadedRun, assemble
from recbole_contrec.recommendation import recommend_batches
from recbole_contrec.settings.config import Config

STAGES = ("reading", "stages", "epoch", "evaluation", "recommend")
NAME = "synthetic"


def scale_point(options: Namespace, model: str, n_users: int, n_items: int) -> dict[str, Any]:
    """Seconds and peak memory of every stage, in a working directory of its own.

    Returns:
        dict: ``interactions``, and ``stages`` with a record each: ``seconds`` (of processor time, scaled to the whole),
        ``peak_mib``, ``start_mib`` (taken over from the stage before), ``own_mib`` (at its end, without pages of
        files), and ``over`` (``memory`` or ``time``), ``refused``, ``not_reached`` or ``left_out`` where it was not
        finished. ``elapsed``, and ``parts`` of the stages before training, are by the clock on the wall.
    """
    folder, limits = Path.cwd(), Limits(options.memory_gib * 1024, options.stage_seconds)
    watched("writing", partial(_write_data, options, n_users, n_items), Limits(limits.memory_mib, 3600), folder)
    written = json.loads((folder / "writing.json").read_text(encoding="utf-8"))
    if "interactions" not in written:
        raise UserError(f"the data of {n_users:,} users cannot be written: {written}")
    later = None if options.only_reading else partial(_stages_from_data, options, limits, folder)
    watched("reading", partial(_read, options, model), limits, folder, later)
    found = {
        stage: json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))
        for stage in STAGES
        if (folder / f"{stage}.json").exists()
    }
    return {
        "model": model,
        "users": n_users,
        "items": n_items,
        "interactions": written["interactions"],
        "stages": {
            stage: found.get(stage, {"left_out" if options.only_reading else "not_reached": True}) for stage in STAGES
        },
    }


def _write_data(options: Namespace, n_users: int, n_items: int) -> dict[str, Any]:
    histories = zipf_histories(n_users, n_items, options.seed, options.median, options.spread, options.exponent)
    write_atomic_files(Path("data"), NAME, histories, n_items)
    return {"interactions": len(histories.items)}


def _read(options: Namespace, model: str) -> tuple[dict[str, Any], tuple[Config, Any]]:
    arguments = [
        f"--data_path={Path('data').resolve()}",
        "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': ['item_id']}",
        f"--seed={options.seed}",
        "--use_gpu=False",
        "--show_progress=False",
        *(f"--{setting}" for setting in options.settings),
    ]
    config = Config(model, NAME, arguments=arguments)
    data = load_data(config)
    return {"rows": len(data.dataset.all_interactions.items)}, (config, data)


def _stages_from_data(options: Namespace, limits: Limits, folder: Path, read: tuple[Config, Any]) -> None:
    def later(loaded: LoadedRun) -> None:
        for stage, work in (("epoch", _epoch), ("evaluation", _evaluation), ("recommend", _recommendations)):
            watched(stage, partial(work, options, loaded), limits, folder)

    watched("stages", partial(_begin, *read), limits, folder, later)


def _begin(config: Config, data: Any) -> tuple[dict[str, Any], LoadedRun]:
    start = process_time()
    loaded = assemble(config, data)
    built = process_time() - start
    loaded.trainer.begin(data.train)
    parts = {name: stage.seconds for name, stage in loaded.trainer.progress.stages.items()}
    return {"parts": {"model": built, **parts}}, loaded


def _epoch(options: Namespace, loaded: LoadedRun) -> dict[str, Any]:
    train = loaded.data.train
    time = time_training(loaded.trainer, train, options.batches, options.seconds, clock=process_time)
    targets = train.n_targets if hasattr(train, "n_targets") else len(train.dataset)
    return {
        "seconds": targets / time.targets_a_second,
        "batches_timed": time.batches,
        "batches": len(train),
        "targets": targets,
    }


def _evaluation(options: Namespace, loaded: LoadedRun) -> dict[str, Any]:
    """The first users of the test."""
    test = loaded.data.test
    loaded.config["eval_batch_size"] = test.step  # which memory may have bounded
    some = min(options.ranked_users, len(test.dataset.inter_feat))
    part = FullSortEvalDataLoader(
        loaded.config, test.dataset.copy(test.dataset.inter_feat[:some]), test._sampler, shuffle=False
    )
    start = process_time()
    loaded.trainer.evaluate(part, load_best_model=False)
    seconds = process_time() - start
    return {"seconds": seconds * len(test.dataset.inter_feat) / some, "users_timed": some}


def _recommendations(options: Namespace, loaded: LoadedRun) -> dict[str, Any]:
    """The first users of all, in two equal batches; what comes before a user's own work is done for the first batch."""
    n_users = loaded.data.dataset.user_num - 1
    batch = max(1, min(options.ranked_users, n_users) // 2)
    start, seconds, rows = process_time(), [], 0
    for table in islice(recommend_batches(loaded, None, k=10, batch_size=batch), 2):
        seconds.append(process_time() - start - sum(seconds))
        rows += len(table)
    return {
        "seconds": seconds[0] + seconds[-1] * (n_users / batch - 1),
        "seconds_before": max(0.0, seconds[0] - seconds[-1]),
        "users_timed": batch * len(seconds),
        "rows": rows,
    }
