"""
recbole_contrec.backbone.adapters
#################################
LoRA (Hu et al. 2022, https://arxiv.org/abs/2106.09685) through peft, and the mark by which a checkpoint that holds the
adapters alone knows the weights that they were trained on.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_contrec.errors import UserError, did_you_mean

SAMPLED = 8  # values of a frozen parameter that stand in the mark
ROUNDING = 2.0**-8  # how far these may differ, for weights loaded in another dtype: bfloat16 has 8 bits


def add_adapters(
    model: Any,
    rank: int,
    alpha: float,
    dropout: float,
    targets: str | Sequence[str],
    without: Sequence[str] = (),
) -> nn.Module:
    """Freeze a model of transformers and put low-rank adapters beside its linear layers.

    Args:
        rank: of the adapters, at least 1.
        alpha: they are scaled by ``alpha / rank``.
        dropout: on what they read.
        targets: ``"all-linear"`` for all but the output layer, ``"default"`` for what peft takes for the architecture,
            or names of layers.
        without: paths of blocks that get no adapters.

    Returns:
        nn.Module: a ``PeftModel``; its adapters compute in float32 where the weights are of half precision.

    Raises:
        UserError: peft is not installed.
        ValueError: a rank, dropout or target that cannot be.
    """
    if rank < 1 or not 0 <= dropout < 1:
        raise ValueError(f"lora_rank={rank}, lora_dropout={dropout}: a rank is at least 0, a dropout from 0 to below 1")
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(
            f"lora_rank={rank} needs peft: pip install 'recbole_contrec[llm]', or train all weights with lora_rank=0"
        ) from error
    if isinstance(targets, str) and targets not in ("all-linear", "default"):
        targets = [targets]
    if not isinstance(targets, str):
        _check_names(model, targets)
    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    settings = LoraConfig(
        task_type=task,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides by it, and takes fractions
        lora_dropout=dropout,
        target_modules=None if targets == "default" else targets if isinstance(targets, str) else list(targets),
        exclude_modules="|".join(rf"{re.escape(path)}\..*" for path in without) or None,
    )
    try:
        with warnings.catch_warnings():
            # peft_model.py:184 of peft 0.21 asks for a name that transformers 5.23 has deprecated; nothing of ours does
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return get_peft_model(model, settings)
    except ValueError as error:
        why = str(error).split("\n")[0]
        raise ValueError(f"lora_targets={targets!r} cannot be adapted, name other layers: {why}") from error


def _check_names(model: nn.Module, targets: Sequence[str]) -> None:
    """Every name must be that of a layer; peft is content with one that is."""
    known = {path.rpartition(".")[2] for path, module in model.named_modules() if not list(module.children())}
    paths = {path for path, _ in model.named_modules()}
    for target in targets:
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            raise ValueError(f"lora_targets: this model has no layer {target!r}{did_you_mean(target, sorted(known))}")
    if not targets:
        raise ValueError("lora_targets: name at least one layer, or take all-linear")


# The mark of what a checkpoint was trained on.


class Base(NamedTuple):
    """A pretrained model as it was loaded: what must be the same where a checkpoint is loaded on top of it.

    Attributes:
        name: for messages only: a copy elsewhere is as good.
        words: of :func:`vocabulary_mark`.
        alpha: of the adapters; their weights do not show it. None where all weights are trained, 0 where none is.
        layers: how many of its layers are used; None for all.
        word_size: of its word vectors, by which what is read beside words is scaled, also where all weights are
            trained and come with the checkpoint.
    """

    name: str
    words: str
    alpha: float | None
    layers: int | None
    word_size: float


def pack_mark(base: Base, frozen: Iterable[Tensor]) -> Tensor:
    """What must be the same where a checkpoint is loaded, as bytes.

    Args:
        frozen: the weights that stay as they are. Few values of each say whether they are the same, in any dtype.
    """
    mark = {
        "base": base.name,
        "words": base.words,
        "alpha": base.alpha,
        "layers": base.layers,
        "word_size": float(f"{base.word_size:.6g}"),
        "weights": _sample(frozen),
    }
    return torch.frombuffer(bytearray(json.dumps(mark).encode()), dtype=torch.uint8)


def check_mark(packed: Tensor, ours: Base, frozen: Iterable[Tensor]) -> None:
    """Compare with the mark of :func:`pack_mark` in a checkpoint.

    Raises:
        RuntimeError: as PyTorch raises for weights that do not fit; says in a line what differs.
    """
    theirs, name = json.loads(packed.cpu().numpy().tobytes()), ours.name
    base = theirs["base"]
    if theirs["words"] != ours.words:
        raise RuntimeError(f"it was trained on {base}, which has other words than {name}")
    if theirs["alpha"] != ours.alpha:
        named: dict[float | None, str] = {None: "lora_rank=0", 0.0: "train_llm=False"}
        how = [named.get(value, f"lora_alpha={value}") for value in (theirs["alpha"], ours.alpha)]
        raise RuntimeError(f"it was trained with {how[0]}, not {how[1]}")
    if (used := theirs.get("layers")) != ours.layers:
        counts = ["all layers" if count is None else f"{count} layers" for count in (used, ours.layers)]
        raise RuntimeError(f"it was trained on {counts[0]} of {base}, not on {counts[1]}: see llm_layers")
    sample, sampled = torch.tensor(_sample(frozen)), torch.tensor(theirs["weights"])
    if sample.shape != sampled.shape or not torch.allclose(sample, sampled, rtol=ROUNDING, atol=1e-7):
        raise RuntimeError(f"it was trained on top of the weights of {base}; those of {name} are others")
    size = theirs.get("word_size", ours.word_size)  # marks of earlier versions do not have it
    if abs(size - ours.word_size) > ROUNDING * ours.word_size:
        raise RuntimeError(f"its training began at the weights of {base}; those of {name} are others")


def vocabulary_mark(vocabulary: Any) -> str:
    """A hash of the words of a ``tokenizers.Tokenizer`` and of their numbers."""
    return hashlib.sha256(json.dumps(sorted(vocabulary.get_vocab().items())).encode()).hexdigest()


def some_values(parameter: Tensor) -> Tensor:
    """Evenly spaced values of a parameter [SAMPLED]; those of them are the same again."""
    values = parameter.detach().reshape(-1)
    places = torch.linspace(0, len(values) - 1, SAMPLED, dtype=torch.float64, device=values.device).long()
    return values[places].float()


@torch.no_grad()
def _sample(parameters: Iterable[Tensor]) -> list[float]:
    """Evenly spaced values of every parameter; quantised ones, which are whole numbers, are left out."""
    found = [some_values(parameter) for parameter in parameters if parameter.is_floating_point()]
    return [float(f"{value:.6g}") for value in torch.cat(found).tolist()] if found else []
