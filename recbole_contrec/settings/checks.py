"""
recbole_contrec.settings.checks
###############################
What RecBole checks late, or not at all, said before a run and in a user's words.
"""

import re
from contextlib import contextmanager
from typing import Iterator

from recbole.evaluator import metric_types
from recbole.evaluator import metrics as metric_classes
from recbole.utils import EvaluatorType

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.settings.schema import show

PARTS = {  # what may stand inside the two dictionaries that RecBole reads without a word about other keys
    "eval_args": {"split": None, "group_by": ("user", "none", None), "order": ("TO", "RO"), "mode": None},
    "train_neg_sample_args": dict.fromkeys(("distribution", "sample_num", "alpha", "dynamic", "candidate_num"))}


@contextmanager
def recbole_checks() -> Iterator[None]:
    """A complaint of RecBole about settings, as a UserError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"RecBole: {error.args[0] if error.args else type(error).__name__}") from error


def check_parts(key: str, value) -> None:
    """The dictionaries in :data:`PARTS` hold parts that RecBole reads.

    Raises:
        UserError: an unknown part (with the nearest), or a value that it cannot have.
    """
    parts = PARTS[key]
    for part, content in value.items() if isinstance(value, dict) else ():
        if part not in parts:
            raise UserError(f"{key}: unknown part {part}{did_you_mean(part, parts)}; it has {', '.join(parts)}")
        if parts[part] and content not in parts[part]:
            raise UserError(f"{key}: {part}={show(content)} must be one of {', '.join(map(show, parts[part]))}")


def check_interval(key: str, value) -> None:
    """RecBole only logs an interval that it cannot read, and filters nothing.

    Raises:
        UserError: shows how an interval is written.
    """
    number = r"\s*[-+]?(?:inf|\d+(?:\.\d+)?)\s*"
    if value and not re.fullmatch(rf"(?:[\[(]{number},{number}[\])];?)+", str(value)):
        raise UserError(f"{key}={show(value)}: write an interval such as [5,inf) or (0,100]")


def check_metrics(final: dict) -> None:
    """Metric names, and the metric by which the best epoch is chosen: RecBole would find out after an epoch.

    Raises:
        UserError: an unknown metric (with the nearest), or a ``valid_metric`` that is not computed.
    """
    metrics = [final["metrics"]] if isinstance(final["metrics"], str) else final["metrics"]
    names = [name for name in dir(metric_classes) if name.lower() in metric_types]
    chosen, _, cut = final["valid_metric"].partition("@")
    for metric in (*metrics, chosen):
        if metric.lower() not in metric_types:
            raise UserError(f"there is no metric {metric!r}{did_you_mean(metric, names)}; there are {', '.join(names)}")
    if chosen.lower() not in [metric.lower() for metric in metrics]:
        raise UserError(f"valid_metric={final['valid_metric']} is not computed: add {chosen} to metrics, which is "
                        f"{metrics}, or set --valid_metric to one of them")
    topk = [final["topk"]] if isinstance(final["topk"], int) else final["topk"] or []
    ranking = metric_types[chosen.lower()] == EvaluatorType.RANKING
    if ranking and chosen.lower() not in ("gauc",) and cut not in map(str, topk):
        raise UserError(f"valid_metric={final['valid_metric']} needs a cut-off of topk, which is {topk}: for instance "
                        f"--valid_metric={chosen}@{topk[-1] if topk else 10}")


def measures_clicks(metric: str) -> bool:
    """Whether a metric rates predicted clicks, such as AUC, instead of a ranking."""
    return metric_types.get(metric.lower()) == EvaluatorType.VALUE
