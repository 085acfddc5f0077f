"""
recbole_contrec.memory
######################
Sizes that do not fit: said before anything is allocated, with an estimate, in place of a killed process.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from recbole.utils import FeatureType, ModelType
from torch.nn.modules.module import register_module_parameter_registration_hook

from recbole_contrec.errors import UserError
from recbole_contrec.settings.protocol import sampled_items

STATE = 4  # a trained number stands beside its gradient and two moments of Adam
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that this process may still take: of the machine, or of its container, or of a GPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    try:  # a container may have less than the machine
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def check_sizes(config, dataset) -> None:
    """The rows of histories, and the scores of a batch.

    Args:
        dataset: read and filtered, not split yet.

    Raises:
        UserError: the setting, the estimate and what is free.
    """
    users, items, interactions = dataset.user_num, dataset.item_num, len(dataset.inter_feat)
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    rows = interactions if not hasattr(dataset, "held_out_rows") else dataset.held_out_rows(users)
    if sequential and config["benchmark_filename"] is None:
        width = _width_of_a_row(config, dataset)
        # twice: RecBole copies the rows when it splits them
        _refuse_beyond(
            2 * rows * width,
            f"MAX_ITEM_LIST_LENGTH={config['MAX_ITEM_LIST_LENGTH']}: {rows:,} rows of histories, {width:,} bytes each,",
        )
    else:
        width = 8 * (config["MAX_ITEM_LIST_LENGTH"] if sequential else 1)
    targets = min(config["train_batch_size"], interactions)
    if sequential and config["loss_type"] == "CE" and not config["ranking_negatives"] and not config["semantic_ids"]:
        _refuse_beyond(
            2 * 4 * targets * items,
            f"train_batch_size={config['train_batch_size']}: scores of "
            f"{items - 1:,} items for "
            f"{targets:,} targets, with their gradients,",
            config["device"],
        )
    for mode in {*config["eval_args"]["mode"].values()}:
        sampled = sampled_items(mode)
        if sampled is not None:
            if sampled > max(1000, items):
                raise UserError(
                    f"eval_args.mode={mode} samples more items than the catalogue has ({items - 1:,}): set full"
                )
            _refuse_beyond((sampled + 1) * width, f"eval_args.mode={mode}: the rows of one user, {width:,} bytes each,")
        elif mode == "full":
            batch = min(config["eval_batch_size"], rows) if sequential else max(config["eval_batch_size"] // items, 1)
            batch = min(batch, rows)
            _refuse_beyond(
                2 * 4 * batch * items,
                f"eval_batch_size={config['eval_batch_size']}: scores of {items - 1:,} items for {batch:,} rows",
                config["device"],
            )


@contextmanager
def fits_in_memory(config) -> Iterator[None]:
    """Around building a model: what it registers must fit with gradients and the optimizer's state.

    Raises:
        ValueError: a size of nothing, or below.
        UserError: the large settings, the estimate and what is free.
    """
    free, total = free_memory(), 0

    def add(module, name, parameter):
        nonlocal total
        if parameter is not None:
            total += parameter.numel() * parameter.element_size()
            if total * STATE > free:
                raise UserError(
                    f"{config['model']} with {_large_settings(config)} is too large: its parameters, their "
                    "gradients and "
                    f"the state of the optimizer take at least {_shown(total * STATE)}, {_shown(free)} are "
                    "free"
                )

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError, ZeroDivisionError) as error:
        if isinstance(error, ZeroDivisionError) or "negative dimension" in str(error):
            raise ValueError(f"cannot be built with {_large_settings(config)}: {str(error).splitlines()[0]}") from error
        if (wanted := out_of_memory(error)) is None:
            raise
        raise UserError(f"{config['model']} with {_large_settings(config)} is too large: {wanted}") from error
    finally:
        hook.remove()


def out_of_memory(error: BaseException) -> str | None:
    """What an error says about memory, in a line; None where it is another error."""
    text = " ".join(str(error).split())
    if match := re.search(r"tried to allocate (\d+) bytes", text):
        return f"one table alone takes {_shown(int(match[1]))}, {_shown(free_memory())} are free"
    known = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    if known or re.search(
        r"out of memory|invalid size|Storage size calculation overflowed|value cannot be converted|"
        r"Overflow when unpacking|array is too big|Maximum allowed dimension",
        text,
        re.I,
    ):
        return text[:200] or "out of memory"
    return None


def _width_of_a_row(config, dataset) -> int:
    """Bytes of a row with its history in every column."""
    width = 0
    for field in dataset.inter_feat:
        if field == dataset.uid_field:
            continue
        kind = dataset.field2type[field]
        number = 8 if kind in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ) else 4
        width += number * dataset.field2seqlen[field] * (2 if field in config["numerical_features"] else 1)
    return width * config["MAX_ITEM_LIST_LENGTH"]


def _refuse_beyond(wanted: int, what: str, device: torch.device | None = None) -> None:
    free = free_memory(device)
    if wanted > free:
        raise UserError(f"{what} take {_shown(wanted)} of memory, {_shown(free)} are free")


def _large_settings(config) -> str:
    given = {
        key: value
        for key, value in config.external_config_dict.items()
        if isinstance(value, int) and not isinstance(value, bool) and key in config.settings and key != "seed"
    }
    largest = sorted(given, key=lambda key: -given[key])[:3]
    return ", ".join(f"{key}={given[key]}" for key in largest) or "these settings"


def _shown(size: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            return f"{size:,.1f} {unit}"
        size /= 1024
