"""
recbole_contrec.settings.devices
################################
Which device a run computes on, without a silent fall back to another.
"""

import logging
import os
import re
from typing import Any

from recbole_contrec import processes
from recbole_contrec.errors import UserError
from recbole_contrec.showing import show

logger = logging.getLogger("recbole_contrec")

VISIBLE = "CUDA_VISIBLE_DEVICES"
_OF_THE_SHELL = os.environ.get(VISIBLE)  # before RecBole writes its own; on a shared machine it says which GPU is ours
_GPU = re.compile(r"\d+|(?:GPU|MIG)-[\w/-]+")


def choose_device(final: dict[str, Any], given: dict[str, Any]) -> None:
    """Set ``device`` and what RecBole reads beside it.

    ``use_gpu=False`` or an empty ``gpu_id`` is the CPU, and hides no GPU from the rest of the process. A GPU that is
    asked for and cannot be used is told of.

    Args:
        final: all settings, changed in place.
        given: those that the user gave.

    Raises:
        UserError: several GPUs, something that is no GPU, or another one than this process already computes on.
    """
    import torch

    gpu = one_gpu(final["gpu_id"]) if processes.size() == 1 else ",".join(named_gpus(final["gpu_id"]))
    final.update(single_spec=True, local_rank=0)
    if not final["use_gpu"] or not gpu:
        if given.get("use_gpu") and "gpu_id" in given:
            logger.warning("use_gpu=True with an empty gpu_id: the run computes on the CPU")
        # RecBole's trainer asks use_gpu, not the device, whether to print GPU memory.
        final.update(use_gpu=False, gpu_id="", device=torch.device("cpu"))
        return
    shell = None if "gpu_id" in given else _OF_THE_SHELL  # what it does not name belongs to others
    visible = processes.own_gpu(gpu if shell is None else shell, may_be_more=shell is None)
    if torch.cuda.is_initialized() and "gpu_id" in given and os.environ.get(VISIBLE, "0") != visible:
        raise UserError(
            f"gpu_id={gpu}: this process already computes on GPU {os.environ.get(VISIBLE, '0')}; start another"
        )
    os.environ[VISIBLE] = visible
    final.update(gpu_id=gpu, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    asked = [f"{key}={show(given[key])}" for key in ("use_gpu", "gpu_id") if key in given]
    if asked and final["device"].type == "cpu":
        logger.warning("%s: no such GPU can be used here, the run computes on the CPU", ", ".join(asked))


def one_gpu(value: Any) -> str:
    """The GPU that ``gpu_id`` names, empty for none.

    Raises:
        UserError: several, or something that is no GPU.
    """
    names = named_gpus(value)
    if len(names) > 1:
        raise UserError(
            f"gpu_id={show(value)} names {len(names)} GPUs, and a process computes on one: give one of them, or start "
            "as many processes with torchrun"
        )
    return names[0] if names else ""


def named_gpus(value: Any) -> list[str]:
    """The GPUs that ``gpu_id`` names: one for each of several processes.

    Raises:
        UserError: something that is no GPU.
    """
    names = [str(part) for part in value] if isinstance(value, (list, tuple)) else str(value).split(",")
    names = [name for name in map(str.strip, names) if name]
    if any(not _GPU.fullmatch(name) for name in names):
        raise UserError(f"gpu_id={show(value)}: must be the number of a GPU; for the CPU set --use_gpu=False")
    return names
