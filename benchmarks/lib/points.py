"""
benchmarks.lib.points
#####################
Measurements on synthetic data, one point each; :mod:`benchmarks.speed` calls them in processes of their own.

All take the options of the command line and give JSON-like dictionaries.
"""

from argparse import Namespace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.utils.tensorboard  # noqa: F401  (imported late by others; here, so that memory at the start includes it)
import transformers.models.gpt2.modeling_gpt2  # noqa: F401  (the same)

from benchmarks.lib.measuring import MIB, median_seconds, seconds_of, time_training
from benchmarks.lib.released import ReleasedScheme
from benchmarks.lib.synthetic import SyntheticDataset, random_histories, write_atomic_files
from recbole_contrec.data.loading import load_data
from recbole_contrec.data.windows import WindowLoader
from recbole_contrec.quick_start import assemble, trainer_class_of
from recbole_contrec.settings.config import Config

SHORTEST, LONGEST = 5, 24  # interactions a user in the measurements by number of users
RELEASED_LENGTH = 20  # items a history, as the released code reads them


def configure(options: Namespace, model: str, dataset: str, data_path: str | None, length: int) -> Config:
    """The configuration of a model on one machine without a GPU, with the settings given for ContRec."""
    arguments = [
        f"--MAX_ITEM_LIST_LENGTH={length}",
        f"--seed={options.seed}",
        "--use_gpu=False",
        "--show_progress=False",
    ]
    arguments += [f"--data_path={data_path}"] if data_path else []
    arguments += [f"--train_batch_size={options.train_batch_size}"] if options.train_batch_size else []
    arguments += [f"--{setting}" for setting in options.settings] if model == "ContRec" else []
    return Config(model, dataset, arguments=arguments)


def ranking_point(options: Namespace, n_items: int, method: str) -> dict[str, Any]:
    """Users a second of a full ranking.

    Args:
        method: ``"full_sort"`` scores the whole catalogue at once and takes the best of it, as RecBole's evaluation
            does; ``"top_k"`` keeps the best while the catalogue passes in chunks.
    """
    length = options.histories[0]
    config, dataset, model = _untrained(options, n_items, options.ranked_users, length=length)
    users_a_second = _users_a_second(config, dataset, model, method, options.rounds)
    return {"items": n_items, "method": method, "users_a_second": users_a_second}


def fits(options: Namespace, n_items: int) -> bool:
    """Whether the scores of a batch of users over the whole catalogue stay within ``--score_memory``."""
    config = configure(options, "ContRec", options.dataset, options.data_path, options.histories[0])
    return 4 * config["eval_batch_size"] * n_items / MIB <= options.score_memory


def history_point(options: Namespace, length: int) -> dict[str, Any]:
    """Users ranked and targets trained a second, with every history as long as the model reads (L)."""
    n_users = max(options.ranked_users, options.targets // length)
    config, dataset, model = _untrained(options, options.items, n_users, length=length, shortest=length + 1)
    histories = random_histories(options.ranked_users, options.items, length, length, options.seed)
    ranked = SyntheticDataset(config, histories, options.items)
    users_a_second = _users_a_second(config, ranked, model, "full_sort", options.rounds)
    trainer = trainer_class_of(config)(config, model)
    time = time_training(trainer, WindowLoader(config, dataset), options.batches, options.seconds)
    return {
        "history": length,
        "users_a_second": users_a_second,
        "targets_a_second": time.targets_a_second,
        "batches_timed": time.batches,
    }


def users_point(options: Namespace, n_users: int) -> dict[str, Any]:
    """Seconds of everything that a run does, by its parts: an epoch is scaled up from the batches that were timed."""
    histories = random_histories(n_users, options.items, SHORTEST, LONGEST, options.seed)
    write_atomic_files(Path("data"), "synthetic", histories)
    config = configure(options, "ContRec", "synthetic", str(Path("data").resolve()), options.histories[0])
    start = perf_counter()
    data = load_data(config)
    loaded_at = perf_counter()
    loaded = assemble(config, data)
    trainer = loaded.trainer
    built_at = perf_counter()
    trainer.begin(data.train)
    begun_at = perf_counter()
    time = time_training(trainer, data.train, options.batches, options.seconds)
    ranking = seconds_of(lambda: trainer.evaluate(data.test, load_best_model=False))
    seconds = {
        "load": loaded_at - start,
        "build": built_at - loaded_at,
        "stages": begun_at - built_at,
        "epoch": data.train.n_targets / time.targets_a_second,
        "ranking": ranking,
    }
    return {
        "users": n_users,
        "interactions": len(histories.items),
        "seconds": {**seconds, "total": sum(seconds.values())},
        "batches_timed": time.batches,
        "batches_an_epoch": len(data.train),
    }


def released_point(options: Namespace) -> dict[str, Any]:
    """Users a second of the released code's scheme and of ours, over the same catalogue at the same widths."""
    config, dataset, model = _untrained(options, options.items, options.ranked_users, length=RELEASED_LENGTH)
    scheme = ReleasedScheme(config, model.item_vectors.weight.detach(), model.prompt.max_positions)
    prompts = torch.randn(1 + options.rows, model.prompt.max_positions, config["hidden_size"])
    scheme.recommend(prompts[0])  # to warm up
    rows = [scheme.recommend(prompt)[1] for prompt in prompts[1:]]
    seconds = {part: sum(getattr(row, part) for row in rows) / len(rows) for part in ("tokens", "diffusion", "scores")}
    released = len(rows) / sum(row.total for row in rows)
    batched = _users_a_second(config, dataset, model, "full_sort", options.rounds)
    one_by_one = _users_a_second(
        config, dataset, model, "full_sort", options.rounds, batch_size=1, n_batches=options.rows
    )
    return {
        "items": options.items,
        "rows": options.rows,
        "seconds_a_user": seconds,
        "released_users_a_second": released,
        "ours_users_a_second": batched,
        "ours_one_by_one_users_a_second": one_by_one,
        "times_faster": batched / released,
        "times_faster_one_by_one": one_by_one / released,
    }


def _untrained(options: Namespace, n_items: int, n_users: int, length: int, shortest: int = 3):
    """Configuration, synthetic data and a ContRec of random weights; histories of up to ``length + 1`` items."""
    torch.manual_seed(options.seed)
    config = configure(options, "ContRec", options.dataset, options.data_path, length)
    dataset = SyntheticDataset(config, random_histories(n_users, n_items, shortest, length + 1, options.seed), n_items)
    model = config.model_class(config, dataset).to(config["device"])
    with torch.no_grad():
        model.items.table.weight.normal_()
    return config, dataset, model


@torch.no_grad()
def _users_a_second(config, dataset, model, method, rounds, batch_size=None, n_batches=None) -> float:
    """Median over some rounds of ranking, after one to warm up."""
    k = max(config["topk"])

    def rank(batch):
        if method == "top_k":
            return model.top_k(batch, k)
        scores = model.full_sort_predict(batch)  # [B, N]
        scores[:, 0] = -torch.inf
        return scores.topk(k)

    model.eval()
    batches = list(dataset.ranking_batches(config["MAX_ITEM_LIST_LENGTH"], batch_size or config["eval_batch_size"]))
    batches = batches[:n_batches]
    seconds = median_seconds(lambda: [rank(batch) for batch in batches], rounds)
    return sum(map(len, batches)) / seconds
