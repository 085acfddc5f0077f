"""
recbole_contrec.training.log
############################
What a run logs at its start and at its end: changed settings, data and model in a line each; then the metrics in a
table, the protocol card, and where the checkpoint is.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recbole.utils import set_color
from torch import nn

from recbole_contrec.environment import peak_memory
from recbole_contrec.settings.method import method_of
from recbole_contrec.settings.recipe import recipe_of
from recbole_contrec.training.card import card_lines, cut_of, interactions, settled

if TYPE_CHECKING:
    from recbole_contrec.data.loading import RunData
    from recbole_contrec.settings.config import Config

logger = logging.getLogger("recbole_contrec")

_LOGGED_BEFORE = (
    "data_notes",
    "method_in_short",
    "differs_from_the_paper",
)  # parts of the card that are further up in the log


def log_start(config: "Config", data: "RunData", model: nn.Module) -> None:
    """Settings, data and model of a run that begins.

    Args:
        config: :class:`~recbole_contrec.settings.config.Config`.
        data: :class:`~recbole_contrec.data.loading.RunData`.
        model: untrained, on its device.
    """
    logger.info(config.describe())
    settings = settled(config, model)
    if method := method_of(settings):
        logger.info("%s (%s): %s", config["model"], method.short, method)
    if recipe := recipe_of(config, settings):
        logger.info("%s", recipe)
    logger.info(data_line(data))
    if cut := cut_of(model):
        logger.warning(
            "MAX_ITEM_LIST_LENGTH=%s is more than a prompt has room for: of longer histories %s are read, and training "
            "leaves out the others as well; lower it, item_text_max_tokens or answer_max_tokens, or let a prompt be "
            "longer (max_prompt_length, another llm)",
            config["MAX_ITEM_LIST_LENGTH"],
            cut,
        )
    parameters = list(model.parameters())
    logger.info(
        "%s: %s of %s parameters are trained",
        config["model"],
        f"{sum(p.numel() for p in parameters if p.requires_grad):,}",
        f"{sum(p.numel() for p in parameters):,}",
    )


def data_line(data: "RunData") -> str:
    """Size of the data after filtering, and targets of validation and test."""
    users, items, count = data.dataset.user_num - 1, data.dataset.item_num - 1, interactions(data)
    return (
        f"{data.dataset.dataset_name}: {users:,} users, {items:,} items, {count:,} interactions "
        f"({count / (users * items):.2%} of all pairs), {data.valid.sample_size:,} validation and "
        f"{data.test.sample_size:,} test targets{_cold(data.dataset)}"
    )


def _cold(dataset: Any) -> str:
    """Behind the targets: which of them training knows little about, where a split leaves such."""
    names = {"valid": "validation", "test": "test"}
    parts = []
    for part, facts in (getattr(dataset, "held_out", None) or {}).items():
        text = f"; of {names[part]}, {facts.cold_items:,} are cold items and {facts.cold_users:,} are of cold users"
        if facts.without_history is not None:
            text += f", and {facts.without_history:,} further events have no history and are no targets"
        parts.append(text)
    moments = getattr(dataset, "moments", None)
    begin = f"; validation begins at {moments.valid:.9g}, the test at {moments.test:.9g}" if moments else ""
    return begin + "".join(parts)


def log_end(result: dict[str, Any]) -> None:
    """The metrics, the protocol card and the next step.

    Args:
        result: of a run, as it is written to its JSON file.
    """
    logger.info(set_color("results", "yellow") + f" (best epoch: {result['best_epoch']})\n" + "\n".join(table(result)))
    card = {name: value for name, value in result["card"].items() if name not in _LOGGED_BEFORE}
    logger.info(set_color("protocol card", "blue") + "\n" + "\n".join(card_lines(card)))
    seconds = ", ".join(f"{name} {value:g}" for name, value in result["seconds"].items())
    logger.info("seconds: %s; peak memory %d MiB", seconds, peak_memory() / 2**20)
    if path := result["checkpoint"]:
        logger.info(
            "checkpoint: %s\nrecommendations from it:\n    python -m recbole_contrec recommend "
            "--checkpoint=%s --users=ID,ID --k=10",
            path,
            path,
        )


def table(result: dict[str, Any]) -> Iterator[str]:
    """Aligned lines, one per metric: its value on validation data in the best epoch (- without validation), and on test
    data."""
    valid, test = result["best_valid_result"] or {}, result["test_result"] or {}
    places, names = result["settings"]["metric_decimal_place"], list(dict.fromkeys([*test, *valid]))
    wide, width = max(map(len, [*names, "metric"])), max(places + 3, len("valid"))
    yield f"  {'metric':<{wide}}  {'valid':>{width}}  {'test':>{width}}"
    for name in names:
        cells = ("-" if values.get(name) is None else f"{values[name]:.{places}f}" for values in (valid, test))
        yield f"  {name:<{wide}}  " + "  ".join(f"{cell:>{width}}" for cell in cells)
