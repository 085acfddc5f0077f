"""
recbole_contrec.sharding
########################
A language model that no process holds whole: fully sharded data parallelism, the second version of PyTorch
(``torch.distributed.fsdp.fully_shard``; Zhao et al. 2023, https://arxiv.org/abs/2304.11277).

Of every parameter in the blocks each process holds one part. A block is whole while it computes, forward or backward,
and no longer; its gradients come as parts of their means over the processes. What is outside of the blocks (word table,
norms, and all of a recommender that is no language model) stays in every process.

Optimizer, clipping and the average of the weights see the own parts, as plain tensors. Whatever is saved or loaded is
whole: a file does not tell how many processes have written it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from recbole_contrec import processes

Averaged = tuple[dict[str, Tensor], dict[str, Tensor]]  # parameters by name, and what was made of each


class Part(NamedTuple):
    """The own part of a parameter of the blocks."""

    parameter: Any  # DTensor that PyTorch has put in the place of the whole one
    own: Tensor  # what an optimizer steps along: a leaf that shares its memory


class Shards:
    """The blocks of a language model of transformers, in parts over all processes of a run.

    Blocks are put together by all processes at once, so all have to compute as many passes. They need not know how
    many: each says that it begins one, and who has no more of them computes empty ones along (:meth:`catch_up`) until
    nobody has.

    Args:
        body: the language model without its output layer; it is changed in place.
        blocks: its blocks.
        width: of its inputs (D).
        dtype: of its inputs.
    """

    def __init__(self, body: nn.Module, blocks: Iterable[nn.Module], width: int, dtype: torch.dtype):
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.fsdp import fully_shard

        blocks, whole = list(blocks), dict(body.named_parameters())
        inside = {id(p) for block in blocks for p in block.parameters()}
        self.device = next(iter(whole.values())).device
        group = processes.new_group(self.device)
        for parameter in whole.values():
            if id(parameter) in inside and parameter.requires_grad:
                dist.broadcast(parameter.data, 0, group=group)
        self.mesh = DeviceMesh.from_group(group, self.device.type)
        for block in blocks:
            fully_shard(block, mesh=self.mesh, reshard_after_forward=True)
        outside = {p for p in whole.values() if id(p) not in inside}
        fully_shard(body, mesh=self.mesh, reshard_after_forward=True, ignored_params=outside)
        self.body, self.width, self.dtype = body, width, dtype
        parts: list[tuple[Tensor, Part]] = []
        for name, parameter in body.named_parameters():
            if id(whole[name]) in inside and parameter.requires_grad:
                own: Tensor = parameter.to_local().detach().requires_grad_()  # type: ignore[attr-defined]  # a DTensor
                parts.append((whole[name], Part(parameter, own)))
        self.parts = {id(part.own): part for _, part in parts}
        self._whole = {id(parameter): (parameter, part) for parameter, part in parts}  # until they are taken over
        self._along = False  # while an empty pass is computed
        body.register_forward_pre_hook(self._announce)

    # passes

    def _announce(self, *_: Any) -> None:
        if not self._along:
            processes.summed([1.0])

    def catch_up(self) -> Tensor | float:
        """Compute along until no process has passes left; to be called in all of them after each loss or batch.

        Returns:
            Tensor | float: 0; where gradients are computed, it belongs to the loss, for the sake of the way back.
        """
        nothing: Tensor | float = 0.0
        while processes.summed([0.0])[0]:
            self._along = True
            try:
                inputs = torch.zeros(1, 1, self.width, dtype=self.dtype, device=self.device)
                inputs.requires_grad_(torch.is_grad_enabled())
                nothing = nothing + 0 * self.body(inputs_embeds=inputs, use_cache=False).last_hidden_state.float().sum()
            finally:
                self._along = False
        return nothing

    # steps

    def take_over(self, optimizers: Iterable[torch.optim.Optimizer], averages: Iterable[Averaged]) -> None:
        """Let those that were made for whole parameters work on the own parts, with the own parts of what they know.
        The whole parameters are gone then."""
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for place, parameter in enumerate(group["params"]):
                    if id(parameter) in self._whole:
                        _, part = self._whole[id(parameter)]
                        group["params"][place] = part.own
                        if (state := optimizer.state.pop(parameter, None)) is not None:
                            optimizer.state[part.own] = {
                                name: _own(value, part) if _is_like(value, parameter) else value
                                for name, value in state.items()
                            }
        for parameters, average in averages:
            for name, parameter in parameters.items():
                if id(parameter) in self._whole:
                    _, part = self._whole[id(parameter)]
                    parameters[name], average[name] = part.own, _own(average[name], part)
        self._whole = {}

    def hand_over(self) -> None:
        """Give the gradients of the last backward passes to the own parts."""
        for parameter, own in self.parts.values():
            if parameter.grad is not None:
                own.grad, parameter.grad = parameter.grad.to_local(), None

    def clip(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0, **options: Any) -> None:
        """``torch.nn.utils.clip_grad_norm_`` for own parts beside tensors that every process has."""
        inside: list[Tensor] = []
        outside: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is not None:
                (inside if id(parameter) in self.parts else outside).append(parameter)
        of_parts = processes.each([float(get_total_norm([p.grad for p in inside], norm_type))])  # type: ignore[misc]
        of_rest = get_total_norm([p.grad for p in outside], norm_type)  # type: ignore[misc]
        norms = torch.tensor([float(of_rest), *(norm for (norm,) in of_parts)], dtype=torch.float64)
        total = torch.linalg.vector_norm(norms, norm_type)
        if options.get("error_if_nonfinite") and not total.isfinite():
            raise RuntimeError(f"The total norm of order {norm_type} for gradients is non-finite")
        clip_grads_with_norm_([*inside, *outside], max_norm, total.to(self.device, torch.float32))

    # files

    @torch.no_grad()
    def whole(self, tensor: Tensor, part: Part) -> Tensor:
        """A tensor like the own part of a parameter, whole and on the CPU: in all processes at once."""
        from torch.distributed.tensor import DTensor

        parameter = part.parameter
        split = DTensor.from_local(
            tensor,
            self.mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
        return split.full_tensor().cpu()

    def whole_state(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A packed state of an optimizer (names are ``number.field``), whole: in all processes at once."""
        numbered = enumerate(p for group in optimizer.param_groups for p in group["params"])
        own = {str(number): (self.parts[id(p)], p) for number, p in numbered if id(p) in self.parts}
        found = {}
        for name, tensor in tensors.items():
            part = own.get(name.partition(".")[0])
            found[name] = self.whole(tensor, part[0]) if part and _is_like(tensor, part[1]) else tensor
        return found

    def whole_average(self, average: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Averages by name, whole: in all processes at once."""
        return {
            name: self.whole(tensor, self.parts[id(parameters[name])]) if id(parameters[name]) in self.parts else tensor
            for name, tensor in average.items()
        }


def whole(tensor: Any) -> Any:
    """A parameter, put together on the CPU where it is in parts: in all processes at once."""
    return tensor.full_tensor().cpu() if processes.is_part(tensor) else tensor


def split_like(tensor: Tensor, parameter: Any) -> Any:
    """A whole tensor in parts as those of a parameter, without sending anything."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        tensor.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def _own(tensor: Tensor, part: Part) -> Tensor:
    """The own part of a tensor as large as a whole parameter."""
    return split_like(tensor, part.parameter).to_local().clone()


def _is_like(value: Any, parameter: Tensor) -> bool:
    return torch.is_tensor(value) and value.dim() > 0 and value.shape == parameter.shape
