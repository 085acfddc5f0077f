"""
recbole_contrec.training.card
#############################
The protocol card: what must be known to compare a number with another one, on screen and in the result file.
"""

from typing import Any

from recbole_contrec import processes
from recbole_contrec.data.moments import GLOBAL
from recbole_contrec.environment import device_name, git_commit, package_versions, peak_gpu_memory, peak_memory
from recbole_contrec.interface import GeneratesSemanticIds
from recbole_contrec.model.parts.history import HistoryEncoder
from recbole_contrec.settings.method import method_of
from recbole_contrec.settings.recipe import recipe_of
from recbole_contrec.training.identity import open_parts

LEFT_OPEN = ("text_similarity",)  # settings that may be left to validation


def protocol_card(config: Any, data: Any, trainer: Any) -> dict[str, Any]:
    """Facts of a finished run.

    Args:
        config: of the run.
        data: :class:`~recbole_contrec.data.loading.RunData`.
        trainer: after training and testing.
    """
    model = trainer.model
    parameters = list(model.parameters())
    return {
        "model": config["model"],
        **what_ran(config, settled(config, model, trainer.chosen)),
        **protocol_facts(config, data),
        "histories_cut_to": cut_of(model),
        "seen_items_generated": model.generates_seen if isinstance(model, GeneratesSemanticIds) else None,
        "seed": config["seed"],
        "versions": package_versions(),
        "commit": git_commit(),
        "device": device_name(config["device"]),
        **({"processes": processes.size()} if processes.size() > 1 else {}),
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "peak_memory_mib": round(peak_memory() / 2**20),
        "peak_gpu_memory_mib": peak_gpu_memory(config["device"]),
        "sampling_steps": config["sampling_steps"],
        "num_samples": config["num_samples"],
        "test_users_per_second": round(trainer.evaluation_speed, 1),
    }


def protocol_facts(config: Any, data: Any) -> dict[str, Any]:
    """What data, split and ranking of a run are: the part of its card that is known before a model is trained.

    Args:
        config: of the run.
        data: :class:`~recbole_contrec.data.loading.RunData`.
    """
    dataset = data.dataset
    sequential = config["MODEL_TYPE"].name == "SEQUENTIAL"
    return {
        "dataset": config["dataset"],
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": interactions(data),
        "core_filter": {"user": config["user_inter_num_interval"], "item": config["item_inter_num_interval"]},
        "value_filter": config["val_interval"],
        "pairs_once": config["rm_dup_inter"],
        **_split(config, dataset),
        "ranking": config["eval_args"]["mode"],
        "ties": "as torch.topk orders equal scores; counted in test_ranks.npz",
        "seen_items_masked": (not sequential) if config["mask_seen"] is None else config["mask_seen"],
        "max_history": config["MAX_ITEM_LIST_LENGTH"] if sequential else None,
        "first_interactions_only": config["first_n"],
        "data_notes": getattr(dataset, "notes", None) or None,
        "targets": {"valid": data.valid.sample_size, "test": data.test.sample_size},
        **_held_out(dataset),
        "metrics": config["metrics"],
        "topk": config["topk"],
        "valid_metric": config["valid_metric"],
    }


def _split(config: Any, dataset: Any) -> dict[str, Any]:
    """How the data were split, and in which order; of moments, where they are and not which share they leave."""
    if config["benchmark_filename"]:  # RecBole reads none of eval_args.split and eval_args.order
        return {"split": {"files": config["benchmark_filename"]}, "order": "as in the files"}
    order = config["eval_args"]["order"]
    if order == "TO":
        order = f"TO, by RecBole's float32 {config['TIME_FIELD']}; equal times keep the order of the file"
    split, moments = config["eval_args"]["split"], getattr(dataset, "moments", None)
    if moments is not None:
        split = {GLOBAL: [moments.valid, moments.test]}
    by_share = {"group_by": config["eval_args"]["group_by"] or "none"} if "RS" in split else {}
    return {"split": split, **by_share, "order": order}


def _held_out(dataset: Any) -> dict[str, Any]:
    """Targets that training knows little about, where a split leaves such."""
    facts = getattr(dataset, "held_out", None)
    return {"held_out": {part: of_part._asdict() for part, of_part in facts.items()}} if facts else {}


def cut_of(model: Any) -> str | None:
    """What a model reads of histories that do not fit into its prompt; None where all up to ``max_history`` do."""
    history = getattr(model, "history", None)
    return history.cut if isinstance(history, HistoryEncoder) else None


def settled(config: Any, model: Any, chosen: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """The settings of a run as they come out: what is left to validation is 0 where no part of the model has it (no
    item texts) or nothing was validated.

    Args:
        chosen: of the trainer after training; None before it.
    """
    still_open = {part.candidates[0] for part in open_parts(model)}
    settings = config.to_record()
    for name in LEFT_OPEN:
        if name in settings and settings[name] is None and (name not in still_open or chosen is not None):
            settings[name] = (chosen or {}).get(name, {"value": 0.0})["value"]
    return settings


def what_ran(config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The method of a run, and in which parts it differs from the paper: what it has, and what the paper has.

    Args:
        settings: of :func:`settled`.
    """
    method, recipe = method_of(settings), recipe_of(config, settings)
    return {
        "method": str(method) if method else None,
        "method_in_short": method.short if method else None,
        "recipe_of_the_paper": recipe.name if recipe else None,
        "differs_from_the_paper": {
            part: " / ".join(pair) for part, pair in {**recipe.differences, **recipe.settings}.items()
        }
        if recipe
        else None,
    }


def interactions(data: Any) -> int:
    """Interactions after filtering; the loaders of sequential models hold rows, so these are counted back."""
    length_field = data.dataset.config["ITEM_LIST_LENGTH_FIELD"]
    rows = len(data.dataset.inter_feat)
    if length_field in data.dataset.inter_feat:
        return rows + int((data.dataset.inter_feat[length_field] == 1).sum())  # a history of n gave n-1 rows
    return rows


def card_lines(card: dict[str, Any]) -> list[str]:
    """The card as aligned lines for the log."""
    width = max(map(len, card))
    return [f"  {name:<{width}}  {_plain(value)}" for name, value in card.items() if value is not None]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
