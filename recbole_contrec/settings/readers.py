"""
recbole_contrec.settings.readers
################################
Whether a model reads a setting that concerns only some models. What a user's own class reads only the
user knows: for it every answer is yes.
"""

import inspect
import logging
import re
from typing import Any

from recbole.utils import InputType, ModelType

from recbole_contrec.errors import UserError
from recbole_contrec.settings.recbole_keys import BY_KEY, REFUSED
from recbole_contrec.settings.schema import Setting
from recbole_contrec.showing import show

logger = logging.getLogger("recbole_contrec")

_HARMLESS = {
    "nproc": (1,),
    "world_size": (-1, 1),
    "offset": (0,),
    "group_offset": (0,),
    "local_rank": (0,),
    "entity_kg_num_interval": (
        None,
    ),  # filters nothing, and comes back from checkpoints: RecBole's ml-100k.yaml has it
    "relation_kg_num_interval": (None,),
}
_TRANSFORMED = ("MASK_ITEM_SEQ", "MASK_INDEX", "INVERSE_ITEM_SEQ", "CROP_ITEM_SEQ", "REORDER_ITEM_SEQ")
_WHY = {
    "labels": "learns from no labels, and they filter nothing",
    "features": "reads no features of users, items or interactions",
    "transform": "reads no transformed item lists",
    "get_preload_weight": "reads no vectors from files",
    "knowledge": "reads no knowledge graph",
    "sequential": "reads no histories",
    "negatives": "scores the whole catalogue and takes no sampled negatives",
    "pairs": "takes no pairs of items",
    "shuffled": "always shuffles",
    "scaled": "computes in bf16, which needs no scaling",
}


def check_keys(config: Any, final: dict[str, Any], given: dict[str, Any], windows: bool) -> None:
    """Settings of RecBole that are refused here, or that this model does not read.

    Args:
        final: all settings.
        given: those that the user gave.
        windows: whether the model trains on whole histories.

    Raises:
        UserError: the setting and the reason.
    """
    for key, value in given.items():
        row = BY_KEY.get(key)
        if row is None or _is_default(key, value, config.settings.get(key)):
            continue
        if row.fate == REFUSED and key != "valid_metric_bigger":  # that one is checked with its metric
            raise UserError(f"{key}={show(value)}: {row.text}")
        if row.readers and not reads(config, final, row.readers, windows):
            reason = _reason(config, key, value, row.readers)
            if row.elsewhere == "refused":
                raise UserError(f"{key}={show(value)}: {reason}")
            logger.warning("%s=%s does nothing: %s", key, show(value), reason)
        elif not row.readers and row.fate not in ("honoured", REFUSED):
            logger.warning("%s=%s does nothing: %s", key, show(value), row.text)
    for row in BY_KEY.values():  # that of a YAML of the data set counts as well, but is not this model's fault
        if (
            row.key == "threshold"
            and row.key not in given
            and final.get(row.key)
            and not reads(config, final, row.readers, windows)
        ):
            logger.warning("%s=%s does nothing: %s %s", row.key, show(final[row.key]), config.model, _WHY["labels"])


def _reason(config: Any, key: str, value: Any, readers: str) -> str:
    own = config.entry.values.get(key)
    if key == "transform" and own:
        return f"{config.model} is trained with {key}={own}"
    filters = (
        f": to keep the rows from a value on, set --val_interval={_as_filter(value)}" if key == "threshold" else ""
    )
    return f"{config.model} {_WHY.get(readers, 'does not read it')}{filters}"


def reads(config: Any, final: dict[str, Any], what: str, windows: bool) -> bool:
    """Whether the model of a configuration reads what some settings are for.

    Args:
        what: a word of the table's ``readers``, or a name that stands in the source of a model that reads it.
    """
    kind, is_window, no_negatives = final["MODEL_TYPE"], windows, final.get("train_neg_sample_args") in (None, "None")
    if not config.entry.is_recbole and not is_window:
        return True
    if what == "sequential":
        return kind == ModelType.SEQUENTIAL
    if what == "knowledge":
        return kind == ModelType.KNOWLEDGE
    if what == "shuffled":
        return kind != ModelType.KNOWLEDGE
    if what in ("scaled", "negatives"):
        return not is_window
    if what == "pairs":
        return not is_window and getattr(config.model_class, "input_type", None) == InputType.PAIRWISE
    if what == "labels":
        modes = final["eval_args"]["mode"]
        labeled = "labeled" in (modes.values() if isinstance(modes, dict) else [modes])
        return labeled or no_negatives and not is_window and _mentions(config.model_class, "LABEL_FIELD")
    if what == "features":
        return kind in (ModelType.CONTEXT, ModelType.DECISIONTREE) or _mentions(config.model_class, r"\w*SeqEmbLayer")
    if what == "transform":
        own = config.entry.values.get("transform")
        return final["transform"] == own if own or is_window else _mentions(config.model_class, "|".join(_TRANSFORMED))
    masked = what in ("mask_ratio", "ft_ratio") and final["transform"] == "mask_itemseq"
    return masked or _mentions(config.model_class, what)


def learns_from_labels(config: Any) -> bool:
    """Whether a model of RecBole's trains on labels of the file; sampled negatives bring labels of their own."""
    labels = (
        config["train_neg_sample_args"]["distribution"] == "none" and config["MODEL_INPUT_TYPE"] == InputType.POINTWISE
    )
    return config.entry.is_recbole and labels and _mentions(config.model_class, "LABEL_FIELD")


def lacks_negatives(config: Any) -> bool:
    """Whether a model reads the negative of a pair, and none are drawn."""
    drawn = config["train_neg_sample_args"]["distribution"] != "none"
    return (
        not drawn and config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE and _mentions(config.model_class, "NEG_ITEM_ID")
    )


def _mentions(model_class: type, word: str) -> bool:
    """Whether a word stands in the source of a class or of those that it is made from."""
    for part in model_class.__mro__:
        if part.__module__.startswith(("torch", "builtins")):
            continue
        try:
            if re.search(rf"\b(?:{word})\b", inspect.getsource(part)):
                return True
        except (OSError, TypeError) as error:  # made at run time: nobody knows
            logger.debug("no source of %s: %s", part, error)
            return True
    return False


def _as_filter(threshold: dict[str, float]) -> dict[str, str]:
    return {column: f"[{value},inf)" for column, value in threshold.items()}


def _is_default(key: str, value: Any, setting: Setting | None) -> bool:
    default = getattr(setting, "default", None)
    return value in _HARMLESS.get(key, ()) or value == default and isinstance(value, bool) == isinstance(default, bool)
