"""
recbole_contrec.training.window_trainer
#######################################
The training step of our models: parameter groups, warm-up and cosine schedule, bf16, named loss terms.
"""

import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from recbole.trainer import Trainer
from recbole.utils import set_color
from torch import nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from recbole_contrec.errors import UserError
from recbole_contrec.interface import NamesParametersWithoutDecay
from recbole_contrec.training.lazy_rows import LazyRows, as_dense, sparse_tables
from recbole_contrec.training.trainer import not_finite


class WindowTrainer(Trainer):
    """One pass over windows an epoch, for models that are :class:`~recbole_contrec.interface.TrainsOnWindows`.

    A run puts :class:`~recbole_contrec.training.trainer.RunTrainer` in front of it.
    """

    lazy_rows: LazyRows | None = None  # what updates tables with sparse gradients

    def __init__(self, config: Any, model: nn.Module):
        super().__init__(config, model)
        self.scaler = loss_scaler(model, self.device.type)

    def _build_optimizer(self, **kwargs):
        """RecBole's choice of optimizer over the groups of :func:`parameter_groups`, in one kernel where there is
        one."""
        params = kwargs.pop("params", None) or self._parameter_groups()
        optimizer = super()._build_optimizer(params=params, **kwargs)
        for group in optimizer.param_groups:
            if "betas" in group:
                group["betas"] = group["betas"][0], self.config["adam_beta2"]
            if "fused" in group:
                group["fused"] = True
        if tables := sparse_tables(self.model):
            self.lazy_rows = LazyRows(tables)
            optimizer.register_step_pre_hook(self.lazy_rows)
        return optimizer

    def _parameter_groups(self) -> list[dict]:
        """Groups with a share of the learning rate each: a pretrained language model learns at a rate of its own."""
        if not self.config["llm"]:
            return parameter_groups(self.model, self.weight_decay)
        theirs = {id(p) for p in self.model.backbone.parameters()}
        groups = []
        for group in parameter_groups(self.model, self.weight_decay):
            for own, share in ((True, 1.0), (False, self.config["llm_learning_rate"] / self.learning_rate)):
                params = [p for p in group["params"] if (id(p) not in theirs) == own]
                groups.append({**group, "params": params, "share": share})
        return groups

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        """One pass over the windows.

        Returns:
            tuple: mean of every loss term over the targets of the epoch, named as the model names them.

        Raises:
            FloatingPointError: a term became NaN or infinite; names the epoch, the batch and the term.
        """
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        train_data.set_epoch(epoch_idx)
        n_batches = len(train_data)
        batches = tqdm(
            train_data,
            total=n_batches,
            ncols=100,
            disable=not show_progress,
            desc=set_color(f"Train {epoch_idx:>5}", "pink"),
        )
        totals, weight, kind = None, 0, None
        for number, interaction in enumerate(batches):
            self.set_learning_rate((epoch_idx + number / n_batches) / self.epochs)
            self.optimizer.zero_grad(set_to_none=True)
            interaction = interaction.to(self.device)
            parts = getattr(loss_func, "parts", lambda whole: [partial(loss_func, whole)])(interaction)
            values = 0
            for compute in parts:
                with self._autocast():
                    terms = compute()
                of_part = torch.stack([term.detach().float() for term in terms])
                _check_finite(of_part, terms, epoch_idx, number)
                self.scaler.scale(sum(terms)).backward()
                values = values + of_part
            self.step()
            targets = self.model.windows.count_targets(interaction)
            totals = targets * values if totals is None else totals + targets * values
            weight, kind = weight + targets, type(terms)
        return kind(*(totals / max(weight, 1)).tolist())

    def step(self) -> None:
        """One step of the optimizer along the gradients."""
        shards = getattr(self, "shards", None)  # of a run
        if shards is not None:
            shards.hand_over()
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad_norm and shards is not None:
            shards.clip((p for group in self.optimizer.param_groups for p in group["params"]), **self.clip_grad_norm)
        elif self.clip_grad_norm:
            clip_grad_norm_(as_dense(p for p in self.model.parameters() if p.requires_grad), **self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _autocast(self):
        """bf16 where the settings ask for it and the device computes in it."""
        if not self.enable_amp or (self.device.type == "cuda" and not torch.cuda.is_bf16_supported()):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def set_learning_rate(self, progress: float) -> None:
        factor = learning_rate_factor(progress, self.config["warmup_ratio"], self.config["final_learning_rate_ratio"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor * group.get("share", 1.0)

    def _generate_train_loss_output(self, epoch_idx, s_time, e_time, losses):
        digits = self.config["loss_decimal_place"]
        terms = ", ".join(f"{set_color(name, 'blue')}: {value:.{digits}f}" for name, value in losses._asdict().items())
        return (
            set_color(f"epoch {epoch_idx} training", "green") + f" [{set_color('time', 'blue')}: "
            f"{e_time - s_time:.2f}s, {terms}]"
        )

    def _add_train_loss_to_tensorboard(self, epoch_idx, losses, tag="Loss/Train"):
        for name, value in losses._asdict().items():
            self.tensorboard.add_scalar(f"{tag}/{name}", value, epoch_idx)


def loss_scaler(model: nn.Module, device: str) -> torch.amp.GradScaler:
    """Scaling of the loss where parts of a model compute in float16, whose smallest numbers lose gradients; else it
    does nothing.

    Raises:
        UserError: what is trained is of float16 itself: its gradients cannot be scaled back.
    """
    half = [p for p in model.parameters() if p.dtype == torch.float16]
    if any(p.requires_grad for p in half):
        raise UserError(
            "llm_dtype=float16 with lora_rank=0: weights of float16 cannot be trained, their gradients vanish and "
            "overflow; set llm_dtype=float32 (or bfloat16), or train adapters with lora_rank=8"
        )
    return torch.amp.GradScaler(device, enabled=bool(half))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters in two optimizer groups: what has two or more dimensions decays, but for embedding tables
    and vectors that only stand side by side; biases, norms, temperatures, tables and such vectors do not.

    A module whose own parameters are no matrices names them by a method ``no_weight_decay``, as in timm.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    spared = _without_decay(model)
    decays = {
        name: p.dim() > 1 and id(p) not in spared and "bias" not in name.rpartition(".")[2]
        for name, p in trainable.items()
    }
    return [
        {"params": [p for name, p in trainable.items() if decays[name]], "weight_decay": weight_decay},
        {"params": [p for name, p in trainable.items() if not decays[name]], "weight_decay": 0.0},
    ]


def _without_decay(model: nn.Module) -> set[int]:
    """Ids of the parameters that their modules say are tables or single vectors."""
    found: set[int] = set()
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.Embedding):
            found.update(map(id, own.values()))
        elif isinstance(module, NamesParametersWithoutDecay):
            found.update(id(own[name]) for name in module.no_weight_decay() if name in own)
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Embedding):  # peft keeps the adapters of a table in the module around it
            found.update(id(p) for p in module.parameters())
    return found


def learning_rate_factor(progress: float, warmup: float, final: float) -> float:
    """Linear warm-up over the first share of a run, then a cosine down to ``final``; a function of progress alone,
    so that a resumed run needs no scheduler state.

    Args:
        progress: share of the run that is done, 0 to 1.
        warmup: share of the run that warms up.
        final: learning rate at the end as a share of the full one; 1 keeps it constant.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-2)
    done = (progress - warmup) / max(1 - warmup, 1e-9)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _check_finite(values, terms, epoch, batch):
    if not torch.isfinite(values).all():
        bad = [name for name, value in zip(terms._fields, values.tolist()) if not math.isfinite(value)]
        raise not_finite(epoch, batch, bad)
