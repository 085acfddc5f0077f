"""A peer without any package: it counts how often every item occurs in the training histories.

Its scores are these counts in epoch ``best_epoch`` of its settings (0 without); in all others the validation targets
stand at the end, behind every other item. It knows of no other files than those of the exchange.
``STAND_IN_FAILS=2`` in the environment kills it before that epoch."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.peer.exchange import MASKED, TEST, VALID, read_task, write_outcome
from benchmarks.peer.progress import Progress
from benchmarks.peer.ranking import ndcg_at_10, rank_targets

USERS_AT_ONCE = 7


def run(folder):
    task, asked = read_task(folder)
    counts = torch.bincount(torch.from_numpy(task.items), minlength=1 + task.n_items).float()

    worst = counts.clone()
    worst[torch.from_numpy(task.valid)] = -1.0

    def places(scores, targets, seen=None):
        batches = scores.expand(task.n_users, -1).split(USERS_AT_ONCE)
        return rank_targets(batches, targets, asked["top"], seen)

    progress = Progress(folder, asked["epochs"], asked["patience"])
    for _ in range(progress.epochs_left):
        epoch = len(progress.curve)
        if os.environ.get("STAND_IN_FAILS") == str(epoch):
            sys.exit("the stand-in was told to fail")
        scores = counts if epoch == asked["settings"].get("best_epoch", 0) else worst
        score = ndcg_at_10(places(scores, task.valid), task.valid)
        progress.add(score, epoch_seconds=2.0, weights={"scores": scores}, optimizer={})
        if progress.patience_is_over:
            break
    scores = progress.best["scores"]
    rankings = {
        VALID: places(scores, task.valid),
        TEST: places(scores, task.test),
        MASKED: places(scores, task.test, task.histories(TEST)),
    }
    outcome = {
        "best_epoch": progress.best_epoch,
        "curve": progress.curve,
        "epoch_seconds": progress.epoch_seconds,
        "interactions_an_epoch": len(task.items) // 2,
        "unknown_items": int((counts[1:] == 0).sum()),
        "parameters": task.n_items,
        "recommend_seconds": 0.5,
        "peak_memory_mib": 100,
    }
    write_outcome(folder, rankings, outcome)


if __name__ == "__main__":
    if sys.argv[1] == "--versions":
        print(json.dumps({"stand-in": "1.0", "numpy": np.__version__}))
    else:
        run(Path(sys.argv[1]))
