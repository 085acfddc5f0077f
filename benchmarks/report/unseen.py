"""
benchmarks.report.unseen
########################
From the runs of :mod:`benchmarks.unseen` to Markdown tables.
"""

from statistics import mean

import numpy as np

from benchmarks.lib.runs import Result
from benchmarks.lib.significance import compare, of_users
from benchmarks.report.cells import four, head, line
from benchmarks.report.rows import short_method

TOP = 20
WAYS = ("interactions, held back", "interactions", "texts, held back", "texts", "as it is")


def users_table(rows: dict[str, list[Result]], trained: dict[str, list[Result]]) -> str:
    """NDCG@10 of held-out users beside that of the others, and of the same users in runs that were trained on them,
    with a 95 % bootstrap interval of that difference."""
    lines = head(
        "model",
        "method",
        "seeds",
        "held-out users",
        "NDCG@10 held out",
        "with the unknown-user token",
        "the same users, in training",
        "relative",
        "95 % interval",
        "NDCG@10 of the others",
        "HR@10 held out",
        "HR@10 of the others",
        "popularity, held out",
    )
    for name, results in rows.items():
        found = [result.content["measured"] for result in results]
        ours = _mean(found, "model", "held out", "ndcg@10")
        stand_in = four(_mean(found, "stand-in", "held out", "ndcg@10")) if "stand-in" in found[0] else ""
        pairs = _in_training(results, trained.get(name, []))
        lines.append(
            line(
                name,
                short_method(results[0].content),
                len(results),
                sum(part["model"]["held out"]["targets"] for part in found),
                f"**{four(ours)}**",
                stand_in,
                *(("", "", "") if pairs is None else _cost(*pairs)),
                *(
                    four(_mean(found, "model", group, metric))
                    for group, metric in (("others", "ndcg@10"), ("held out", "hit@10"), ("others", "hit@10"))
                ),
                four(_mean(found, "popularity", "held out", "ndcg@10")),
            )
        )
    return "\n".join([*lines, f"\n{_alike(rows)[1]}."])


def items_table(rows: dict[str, list[Result]], _trained) -> str:
    """How often a held-out item that is a test target enters the top 20, by every way of folding in."""
    lines = head(
        "model",
        "method",
        "seeds",
        "targets that are held-out items",
        "items from",
        f"HR@{TOP} of these",
        "NDCG@10 of these",
        f"HR@{TOP} by chance",
        f"HR@{TOP} by popularity",
        "NDCG@10 of the other targets",
    )
    for name, results in rows.items():
        found = [result.content["measured"] for result in results]
        ways = [way for way in WAYS if way in found[0]]
        if any(set(ways) != set(WAYS) & set(part) for part in found):
            raise ValueError(f"{name} was folded in by other ways in some runs than in others: remove the older ones")
        for way in ways:
            lines.append(
                line(
                    name,
                    short_method(results[0].content),
                    len(results),
                    sum(part[way]["held out"]["targets"] for part in found),
                    way,
                    f"**{four(_mean(found, way, 'held out', f'hit@{TOP}'))}**",
                    four(_mean(found, way, "held out", "ndcg@10")),
                    four(mean(part["chance"] for part in found)),
                    four(_mean(found, "popularity", "held out", f"hit@{TOP}")),
                    four(_mean(found, way, "others", "ndcg@10")),
                )
            )
    early, held_out = _alike(rows)
    return "\n".join(
        [
            *lines,
            f"\n{held_out}; folded in from at most {early} interactions. Held back: to their share of the first "
            "ten places (`new_item_exposure: 1`).",
        ]
    )


TABLES = {"users": users_table, "items": items_table}


def _alike(rows: dict[str, list[Result]]) -> str:
    """What was held out, in words.

    Raises:
        ValueError: not the same in all runs.
    """
    found = {
        (result.content["measured"]["hold_share"], result.content["measured"]["early"])
        for results in rows.values()
        for result in results
    }
    if len(found) > 1:
        raise ValueError(f"runs with different --share or --early stand side by side: {found}; give another --output")
    ((share, early),) = found
    return early, f"{share:.0%} held out, drawn anew by every seed"


def _mean(found: list[dict], *path: str) -> float:
    """Mean over seeds of a number that lies at some path, each seed weighted by its targets."""
    total = weight = 0
    for part in found:
        for key in path[:-1]:
            part = part[key]
        total, weight = total + part[path[-1]] * part["targets"], weight + part["targets"]
    return total / weight


def _in_training(results: list[Result], trained: list[Result]) -> tuple[np.ndarray, np.ndarray] | None:
    """NDCG@10 of the held-out users, and what the same users had in runs of the same seeds that were trained on them,
    user by user [n] each; None without such runs."""
    of_seed = {result.content["card"]["seed"]: result for result in trained}
    pairs = []
    for result in results:
        if (seed := result.content["card"]["seed"]) not in of_seed:
            return None
        users = np.sort(result.content["measured"]["held_out"])
        pairs.append([of_users(run.ranks, users) for run in (result, of_seed[seed])])
    return tuple(np.concatenate(values) for values in zip(*pairs))


def _cost(ours: np.ndarray, seen: np.ndarray) -> tuple[str, str, str]:
    """Cells on what it costs users [n] to be new."""
    found = compare(ours, seen)
    return four(seen.mean()), f"{ours.mean() / seen.mean() - 1:+.1%}", f"{found.low:+.4f} to {found.high:+.4f}"
