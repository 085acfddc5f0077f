"""
recbole_contrec.memory
######################
Sizes that do not fit: said before anything is allocated, with an estimate, in place of a killed process.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from recbole_contrec.errors import UserError

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


def refuse_beyond(wanted: int, what: str, device: torch.device | None = None) -> None:
    """Stop before something is allocated that is larger than what is free.

    Args:
        wanted: bytes.
        what: takes them, the beginning of the error.
        device: where; None for the memory of the machine.

    Raises:
        UserError: the estimate and what is free.
    """
    free = free_memory(device)
    if wanted > free:
        raise UserError(f"{what} take {_shown(wanted)} of memory, {_shown(free)} are free")


@contextmanager
def fits_in_memory(config: Mapping[str, Any]) -> Iterator[None]:
    """Around building a model: what it registers must fit with gradients and the optimizer's state.

    Raises:
        ValueError: a size of nothing, or below.
        UserError: the large settings, the estimate and what is free.
    """
    free, total = free_memory(), 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is not None:
            total += parameter.numel() * parameter.element_size()
            if total * STATE > free:
                raise UserError(
                    f"{config['model']} with {_large_settings(config)} is too large: its parameters, their "
                    "gradients and "
                    f"the state of the optimizer take at least {_shown(total * STATE)}, {_shown(free)} are free"
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


def _large_settings(config: Any) -> str:
    given = {
        key: value
        for key, value in config.external_config_dict.items()
        if isinstance(value, int) and not isinstance(value, bool) and key in config.settings and key != "seed"
    }
    largest = sorted(given, key=lambda key: -given[key])[:3]
    return ", ".join(f"{key}={given[key]}" for key in largest) or "these settings"


def _shown(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            return f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("PiB is the last one")
