"""
recbole_contrec.settings.protocol
#################################
Split, order, mode and metrics against each other and against the kind of model: what RecBole finds out in the middle of
a run, or never.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from recbole.evaluator import metric_types, smaller_metrics
from recbole.evaluator import metrics as metric_classes
from recbole.utils import EvaluatorType

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.showing import show

WITHOUT_CUT = ("gauc",)  # the one ranking metric that rates whole rankings
OF_PROBABILITIES = ("logloss", "mae", "rmse")
FILTERS = ("val_interval", "user_inter_num_interval", "item_inter_num_interval", "rm_dup_inter")


class Kind(NamedTuple):
    """What of a model its protocol depends on."""

    name: str  # as the user typed it
    sequential: bool
    windows: bool  # trained on whole histories, by recbole_contrec.data.windows


def check_protocol(kind: Kind, final: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse what cannot be evaluated as it says.

    Args:
        final: all settings, with a complete ``eval_args``.
        given: those that the user gave.

    Raises:
        UserError: says what goes together.
    """
    if final.get("clip_grad_norm") and final.get("enable_scaler"):
        raise UserError(
            "clip_grad_norm with enable_scaler: RecBole clips gradients while they are scaled, which is another "
            "bound in every step. Leave one of them away"
        )
    if 0 < final["epochs"] < final["eval_step"]:
        raise UserError(
            f"eval_step={final['eval_step']}: of epochs={final['epochs']} none would be validated, so that none "
            f"could be called the best: set eval_step={final['epochs']} or less, or 0 to take the last epoch"
        )
    if final.get("transform") == "mask_itemseq" and int(final["mask_ratio"] * final["MAX_ITEM_LIST_LENGTH"]) < 1:
        raise UserError(
            f"mask_ratio={final['mask_ratio']} of MAX_ITEM_LIST_LENGTH={final['MAX_ITEM_LIST_LENGTH']} items is less "
            "than one, so that nothing would be masked: raise one of them"
        )
    args = final["eval_args"]
    if final.get("mask_seen") is not None and _modes(args["mode"]) != {"full"}:
        raise UserError("mask_seen ranks the whole catalogue: leave it at ~, or eval_args.mode at full")
    own = given.get("eval_args") or {}
    split, order = args["split"], args["order"]
    if final.get("benchmark_filename"):
        _check_given_parts(kind, final, given, own)
        return
    if kind.sequential and order != "TO":
        raise UserError(
            f"{kind.name} reads histories in order of time: leave eval_args.order at TO, it is {show(order)}"
        )
    if {"TS", "GTS"} & set(split) and order != "TO":
        raise UserError(f"eval_args: split {next(iter(split))} cuts at a moment in time: leave order at TO")
    if order == "TO" and not final["TIME_FIELD"]:
        raise UserError(
            "eval_args: order TO sorts by time, and TIME_FIELD is ~: name the column, or, for models that read no "
            "histories, set order to RO"
        )
    if {"LS", "TS"} & set(split) and own.get("group_by", "user") != "user":
        raise UserError(
            f"eval_args: group_by={show(own['group_by'])}: split {next(iter(split))} always cuts the history of every "
            "user; leave group_by at user, or split by RS"
        )


def _check_given_parts(kind: Kind, final: Mapping[str, Any], given: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Data that come split: RecBole neither filters nor splits them."""
    if kind.windows:
        raise UserError(f"{kind.name} splits whole histories itself and cannot read benchmark_filename")
    if useless := [f"eval_args.{part}" for part in ("split", "order", "group_by") if part in own] + [
        key for key in FILTERS if final.get(key) and str(final[key]).replace(" ", "") != "[0,inf)"
    ]:
        raise UserError(
            f"benchmark_filename: the data come split and are read as they are, so that {', '.join(useless)} would do "
            "nothing: leave it away"
        )
    if final.get("mask_seen") is not None and kind.sequential:
        raise UserError("mask_seen: not with benchmark_filename, where what was seen before a target is not kept")


def check_metrics(kind: Kind, final: dict[str, Any], given: dict[str, Any]) -> None:
    """Metric names, the metric by which the best epoch is chosen, and the mode that they need.

    Raises:
        UserError: an unknown metric (with the nearest), one that is not computed, or that the mode or model has no
            number for.
    """
    metrics = [final["metrics"]] if isinstance(final["metrics"], str) else final["metrics"]
    topk = [final["topk"]] if isinstance(final["topk"], int) else final["topk"] or []
    names = [name for name in dir(metric_classes) if name.lower() in metric_types]
    chosen, _, cut = final["valid_metric"].partition("@")
    for metric in (*metrics, chosen):
        if metric.lower() not in metric_types:
            raise UserError(f"there is no metric {metric!r}{did_you_mean(metric, names)}; there are {', '.join(names)}")
    if chosen.lower() not in [metric.lower() for metric in metrics]:
        raise UserError(
            f"valid_metric={final['valid_metric']} is not computed: add {chosen} to metrics, which is "
            f"{metrics}, or set --valid_metric to one of them"
        )
    cuts = metric_types[chosen.lower()] == EvaluatorType.RANKING and chosen.lower() not in WITHOUT_CUT
    if cuts and cut not in map(str, topk):
        raise UserError(
            f"valid_metric={final['valid_metric']} needs a cut-off of topk, which is {topk}: for instance "
            f"--valid_metric={chosen}@{topk[-1] if topk else 10}"
        )
    if not cuts and "@" in final["valid_metric"]:
        raise UserError(f"valid_metric={final['valid_metric']}: {chosen} has no cut-off: --valid_metric={chosen}")
    if not topk and any(metric_types[metric.lower()] == EvaluatorType.RANKING for metric in metrics):
        raise UserError(f"topk={show(final['topk'])}: ranking metrics need a cut-off, for instance --topk=[10]")
    bigger = chosen.lower() not in smaller_metrics
    if "valid_metric_bigger" in given and given["valid_metric_bigger"] != bigger:
        raise UserError(
            f"valid_metric_bigger={given['valid_metric_bigger']}: {'more' if bigger else 'less'} of "
            f"{chosen} is better, and RecBole goes by that; leave this setting away"
        )
    _check_kinds(kind, metrics, final["eval_args"]["mode"])


def _check_kinds(kind: Kind, metrics: list[str], mode: Mapping[str, Any]) -> None:
    """Rankings need rankings, and predicted clicks need labels."""
    ranking = [metric for metric in metrics if metric_types[metric.lower()] == EvaluatorType.RANKING]
    value = [metric for metric in metrics if metric not in ranking]
    if ranking and value:
        raise UserError(
            f"metrics: {', '.join(ranking)} rate rankings and {', '.join(value)} predicted clicks; a run has one kind"
        )
    modes = _modes(mode)
    if kind.windows and "labeled" in modes:
        raise UserError(
            f"{kind.name} ranks what comes next and reads no labels: leave eval_args.mode at full, or set "
            "uni100 or pop100"
        )
    if value and "full" in modes:
        raise UserError(
            f"metrics: {', '.join(value)} rate predicted clicks: set eval_args.mode to labeled or, for sampled items, "
            "to uni100, for both validation and test"
        )
    if ranking and "labeled" in modes:
        raise UserError(
            f"eval_args.mode=labeled rates predicted clicks (AUC, LogLoss); {', '.join(ranking)} need full, uni100 or "
            "pop100"
        )
    if "labeled" in modes and len(modes) > 1:
        raise UserError("eval_args.mode: labeled stands for validation and test together, not beside sampled items")
    if kind.windows and (bad := [metric for metric in value if metric.lower() in OF_PROBABILITIES]):
        raise UserError(f"metrics: {', '.join(bad)} rate probabilities, and {kind.name} scores items without: take AUC")


def _modes(mode: Any) -> set[str]:
    """Those of validation and test."""
    return {*mode.values()} if isinstance(mode, dict) else {mode}


def measures_clicks(metric: str) -> bool:
    """Whether a metric rates predicted clicks, such as AUC, instead of a ranking."""
    return metric_types.get(metric.lower()) == EvaluatorType.VALUE
