"""
recbole_contrec.settings.parts
##############################
What may stand inside settings that are mappings or lists. RecBole reads the parts that it knows and says nothing about
the others, or logs that it cannot read one and goes on without it.
"""

import re
from collections.abc import Callable
from typing import Any

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.settings.intervals import check_interval, check_values
from recbole_contrec.settings.intervals import check_interval_and_type as check_interval_and_type
from recbole_contrec.settings.numbers import check_size as check_size
from recbole_contrec.settings.numbers import is_finite_number
from recbole_contrec.settings.schema import Setting, declare
from recbole_contrec.showing import show

# Mappings with parts of fixed names: every part in the grammar of schema.py.
PARTS: dict[str, dict[str, Setting]] = {
    key: {part: declare(part, comment) for part, comment in parts.items()}
    for key, parts in {
        "eval_args": {
            "split": "(dict)",
            "group_by": "(str or ~; one of: user, none, ~)",
            "order": "(str; one of: TO, RO)",
            "mode": "(str or dict)",
        },
        "train_neg_sample_args": {
            "distribution": "(str or ~; one of: uniform, popularity, ~)",
            "sample_num": "(int; 1..100000)",
            "alpha": "(float; >= 0)",
            "dynamic": "(bool)",
            "candidate_num": "(int; 0..100000)",
        },
        "clip_grad_norm": {"max_norm": "(float; > 0)", "norm_type": "(float or str; > 0)"},
    }.items()
}
FORMS = {
    "eval_args": "{'split': {'LS': 'valid_and_test'}, 'order': 'TO', 'group_by': 'user', 'mode': 'full'}",
    "train_neg_sample_args": "{'distribution': 'uniform', 'sample_num': 1}",
    "clip_grad_norm": "{'max_norm': 1.0}",
    "val_interval": "{'rating': '[3,inf)'}",
    "threshold": "{'rating': 3}",
    "seq_len": "{'title': 10}",
    "preload_weight": "{'ent_id': 'ent_emb'}",
    "discretization": "{'price': {'method': 'ED', 'bucket': 10}}",
    "load_col": "{'inter': ['user_id', 'item_id', 'timestamp']}",
    "unload_col": "{'inter': ['rating']}",
    "unused_col": "{'inter': ['timestamp']}",
}
SPLITS = {
    "LS": "'valid_and_test'",
    "RS": "[0.8, 0.1, 0.1]",
    "TS": "[0.8, 0.1, 0.1]",
    "GTS": "['80%', '90%']",  # ours: RecBole cuts all users at one moment only for the test (TS), or by counting (RS)
}
_PERCENT = re.compile(r"\d+(\.\d+)?%")
LEFT_OUT = ("valid_and_test", "test_only", "valid_only")
PHASES = ("valid", "test")
NAMES = (
    "USER_ID_FIELD",
    "ITEM_ID_FIELD",
    "RATING_FIELD",
    "LABEL_FIELD",
    "ITEM_LIST_LENGTH_FIELD",
    "LIST_SUFFIX",
    "NEG_PREFIX",
    "HEAD_ENTITY_ID_FIELD",
    "TAIL_ENTITY_ID_FIELD",
    "RELATION_ID_FIELD",
    "ENTITY_ID_FIELD",
)
SUFFIXES = ("inter", "user", "item", "kg", "link")


def check_parts(key: str, value: Any, final: dict[str, Any]) -> None:
    """One setting that is a mapping, a list or an interval.

    Args:
        final: all settings, for those that go together.

    Raises:
        UserError: an unknown part with the nearest, a value that it cannot have, or the right form.
    """
    if value is None:
        return
    check_form(key, value)
    for part, content in value.items() if key in PARTS else ():
        if part not in PARTS[key]:
            raise UserError(
                f"{key}: unknown part {part}{did_you_mean(part, PARTS[key])}; it has {', '.join(PARTS[key])}"
            )
        try:
            PARTS[key][part].check(content)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
    if key in _CHECKS:
        _CHECKS[key](key, value, final)


def check_form(key: str, value: Any) -> None:
    """A setting that must be a mapping is one, and one that must be a name is not empty.

    Raises:
        UserError: shows what it looks like.
    """
    if key in NAMES and not (isinstance(value, str) and value) or key == "TIME_FIELD" and value == "":
        raise UserError(f"{key}={show(value)}: must be a text that is not empty")
    if (
        key == "benchmark_filename"
        and value is not None
        and not (isinstance(value, (list, tuple)) and len(value) == 3 and all(isinstance(part, str) for part in value))
    ):
        raise UserError(f"{key}={show(value)}: must name three parts, such as ['train', 'valid', 'test']")
    whole = isinstance(value, dict) and all(isinstance(part, str) for part in value)
    if key in FORMS and value is not None and not whole:
        raise UserError(f"{key}={show(value)}: write a mapping such as {FORMS[key]}")


def named_columns(final: dict[str, Any]) -> dict[str, list[str]]:
    """The columns that settings name, by setting."""
    names = {
        key: list(final.get(key) or ())
        for key in (
            "val_interval",
            "threshold",
            "seq_len",
            "discretization",
            "numerical_features",
            "normalize_field",
            "alias_of_user_id",
            "alias_of_item_id",
            "alias_of_entity_id",
            "alias_of_relation_id",
        )
    }
    names["preload_weight"] = [name for pair in (final.get("preload_weight") or {}).items() for name in pair]
    return {key: found for key, found in names.items() if found}


# the parts of the protocol


def _check_split(key, value, final):
    split = value.get("split")
    forms = " or ".join(f"{{'{name}': {form}}}" for name, form in SPLITS.items())
    if split is None:
        return
    if len(split) != 1 or next(iter(split)) not in SPLITS:
        near = did_you_mean(str(next(iter(split))), SPLITS) if len(split) == 1 else ""
        raise UserError(f"{key}: split={show(split)}: must be one of {forms}{near}")
    [(name, content)] = split.items()
    if name == "LS":
        if content not in LEFT_OUT:
            near = did_you_mean(content, LEFT_OUT) if isinstance(content, str) else ""
            raise UserError(f"{key}: split LS={show(content)}: must be one of {', '.join(LEFT_OUT)}{near}")
        if content == "valid_only":
            raise UserError(
                f"{key}: split LS=valid_only leaves nothing to test, and a run ends with a test: set valid_and_test "
                "or test_only"
            )
        return
    if name == "GTS":
        _check_moments(key, content)
        return
    if not (isinstance(content, list) and len(content) == 3 and all(_is_share(share) for share in content)):
        two = "; two moments in time are {'GTS': [FIRST, SECOND]}" if name == "TS" else ""
        raise UserError(
            f"{key}: split {name}={show(content)}: must be three shares, of training, validation and test: "
            f"{{'{name}': {SPLITS[name]}}}{two}"
        )
    train, valid, test = content
    if not train or not test or name == "TS" and not valid:
        raise UserError(
            f"{key}: split {name}={show(content)}: there must be something to train on and something to "
            "test" + (", and for TS something to validate" if name == "TS" else "")
        )


def _check_moments(key, content):
    """Two numbers, or two shares of the events such as 80%."""
    good = isinstance(content, list) and len(content) == 2
    numbers = good and all(is_finite_number(moment) for moment in content)
    shares = good and all(isinstance(moment, str) and _PERCENT.fullmatch(moment) for moment in content)
    if not numbers and not shares:
        raise UserError(
            f"{key}: split GTS={show(content)}: must be the two moments at which validation and test begin, as times "
            "such as [880000000, 890000000] or as shares of the events before them, such as ['80%', '90%']"
        )
    first, second = (float(moment.rstrip("%")) if shares else moment for moment in content)
    if first >= second or shares and (first <= 0 or second >= 100):
        raise UserError(
            f"{key}: split GTS={show(content)}: validation begins at the first moment and the test at the second, "
            "which must be later" + (", with events before and after them" if shares else "")
        )


def _check_modes(key, value, final):
    mode = value.get("mode")
    if isinstance(mode, dict):
        for phase in mode:
            if phase not in PHASES:
                raise UserError(
                    f"{key}: mode: unknown part {phase}{did_you_mean(str(phase), PHASES)}; it has valid, test"
                )
    for phase_mode in mode.values() if isinstance(mode, dict) else [mode] if mode is not None else []:
        if not (isinstance(phase_mode, str) and re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", phase_mode)):
            raise UserError(
                f"{key}: mode={show(phase_mode)}: must be full, labeled, or a number of sampled items behind uni "
                "or pop: uni100, pop100"
            )


def _check_protocol(key, value, final):
    _check_split(key, value, final)
    _check_modes(key, value, final)


def _is_share(share: Any) -> bool:
    return is_finite_number(share) and share >= 0


# training


def _check_negatives(key, value, final):
    if value.get("dynamic") and not value.get("candidate_num"):
        raise UserError(f"{key}: dynamic=True chooses among candidates: set candidate_num to 1 or more")


def _check_clipping(key, value, final):
    norm = value.get("norm_type", 2.0)
    if "max_norm" not in value or isinstance(norm, str) and norm != "inf":
        raise UserError(f"{key}={show(value)}: needs max_norm, and norm_type is a number or 'inf': write {FORMS[key]}")


# columns


def _check_threshold(key, value, final):
    if len(value) != 1 or not all(
        isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in value.values()
    ):
        raise UserError(f"{key}={show(value)}: must be one column and a number: {FORMS[key]}")


def _check_lengths(key, value, final):
    for column, length in value.items():
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise UserError(f"{key}: {column}={show(length)}: must be a whole number of at least 1")


def _check_lists_of_columns(key, value, final):
    known = (*SUFFIXES, *_texts(final.get("additional_feat_suffix")))
    for suffix, columns in value.items():
        if key == "unload_col" and (final.get("load_col") or {}).get(suffix, "*") != "*":
            raise UserError(f"unload_col and load_col both name columns of the .{suffix} file: leave one of them away")
        if suffix not in known:
            raise UserError(
                f"{key}: unknown part {suffix}{did_you_mean(str(suffix), known)}; it has {', '.join(known)}"
            )
        if (
            columns == "*"
            and key == "load_col"
            or isinstance(columns, (list, tuple))
            and all(isinstance(column, str) for column in columns)
        ):
            continue
        raise UserError(f"{key}: {suffix}={show(columns)}: must be a list of columns: {FORMS[key]}")


def _check_columns(key, value, final):
    if not isinstance(value, list) or not all(isinstance(column, str) for column in value):
        raise UserError(f"{key}={show(value)}: must be a list of columns, such as ['price']")


def _check_pairs(key, value, final):
    if not all(isinstance(column, str) for column in value.values()):
        raise UserError(f"{key}={show(value)}: must be a column of ids and a column of vectors: {FORMS[key]}")


def _check_buckets(key, value, final):
    for column, how in value.items():
        method = how.get("method") if isinstance(how, dict) else None
        bucket = how.get("bucket") if isinstance(how, dict) else None
        if (
            method not in ("ED", "LD")
            or not set(how) <= {"method", "bucket"}
            or (method == "ED") != (isinstance(bucket, int) and not isinstance(bucket, bool) and bucket >= 1)
        ):
            raise UserError(
                f"{key}: {column}={show(how)}: must be {{'method': 'ED', 'bucket': 10}} for ten buckets of equal "
                "width, or {'method': 'LD'} for logarithmic ones"
            )
        if column not in (final.get("numerical_features") or ()):
            raise UserError(f"{key}: {column} must stand in numerical_features as well")


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


_CHECKS: dict[str, Callable] = {
    "eval_args": _check_protocol,
    "train_neg_sample_args": _check_negatives,
    "clip_grad_norm": _check_clipping,
    "val_interval": check_values,
    "threshold": _check_threshold,
    "seq_len": _check_lengths,
    "load_col": _check_lists_of_columns,
    "unload_col": _check_lists_of_columns,
    "unused_col": _check_lists_of_columns,
    "numerical_features": _check_columns,
    "normalize_field": _check_columns,
    "preload_weight": _check_pairs,
    "discretization": _check_buckets,
    **dict.fromkeys(
        ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id"), _check_columns
    ),
    **dict.fromkeys(
        ("user_inter_num_interval", "item_inter_num_interval", "entity_kg_num_interval", "relation_kg_num_interval"),
        lambda key, value, final: check_interval(key, value),
    ),
}
CHECKED = tuple(dict.fromkeys((*FORMS, *_CHECKS)))
