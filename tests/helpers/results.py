"""Results of runs that never ran."""

import json

import numpy as np

from benchmarks.report import rows as report_rows
from benchmarks.report import tables


def write_result(folder, name, seed, ranks, model="ContRec", score=0.1, masked=False, **card):
    """A result as a run leaves it."""
    metrics = {metric: 0.01 * seed + score for metric in tables.METRICS}
    content = {
        "best_valid_score": score,
        "best_epoch": 1,
        "epochs": 3,
        "test_result": metrics,
        "test_result_seen_masked": metrics,
        "curve": [
            {"epoch": epoch, "seconds": 1.0, "core_seconds": 10.0 * (epoch + 1), "score": score * (epoch + 1) / 2}
            for epoch in range(3)
        ],
        "seconds": {"training": 111.0},
        "stages": {"item vectors": {"seconds": 2.0}},
        "card": {
            **dict.fromkeys(report_rows.SHARED),
            "model": model,
            "dataset": "tiny",
            "max_history": 50,
            "seed": seed,
            "seen_items_masked": masked,
            "test_users_per_second": 1234.5,
            "peak_memory_mib": 700,
            "parameters": 9999,
            "device": "cpu, 1 threads",
            "commit": "abc",
            "valid_metric": "NDCG@10",
            **card,
        },
    }
    path = folder / name / f"seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    np.savez(path.with_suffix(".npz"), user=np.array(list("abcdef")), rank=np.asarray(ranks), ties=np.zeros(6, int))
