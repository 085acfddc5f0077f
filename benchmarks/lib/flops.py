"""
benchmarks.lib.flops
####################
How many floating-point operations a training step takes, and how many the machine could do in that time.
"""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


class MatrixRate(NamedTuple):
    """Fastest product of two square fp32 matrices.

    Attributes:
        gflops: 10^9 operations a second.
        size: of the matrices that reached it.
    """

    gflops: float
    size: int


def matrix_rate(sizes: Iterable[int], repeats: int = 5) -> MatrixRate:
    """Best of several sizes and repetitions: a ceiling is what the machine can do undisturbed."""
    return max(MatrixRate(2 * size**3 / _best_seconds(size, repeats) / 1e9, size) for size in sizes)


def _best_seconds(size: int, repeats: int) -> float:
    left, right, out = (torch.randn(size, size) for _ in range(3))
    torch.mm(left, right, out=out)  # the first call starts threads and touches memory
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(perf_counter() - start)
    return min(seconds)


def _forward_flops(query, key, value, *rest, out_shape=None, **named) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_flops(grad, query, key, value, *rest, out_shape=None, **named) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch counts every matrix product, also those inside an autograd Function such as CatalogueCrossEntropy, whose three
# products it sees as they run. It does not know the fused attention of CPUs; these are its own formulas for the other
# fused kernels: two products forward, five backward (one of them repeats the forward pass's), and all S^2 pairs
# although a causal mask needs half. Element-wise work and the optimizer are no matrix products, and are not counted.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
}


class Flops(NamedTuple):
    """Floating-point operations, a multiplication and an addition counted as two.

    Attributes:
        total: all of them.
        attention: those of the fused attention, counted by formula.
    """

    total: int
    attention: int


def count_flops(function: Callable[[], Any]) -> Flops:
    """Matrix products of a call."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        function()
    by_kernel = counter.get_flop_counts()["Global"]
    return Flops(counter.get_total_flops(), sum(by_kernel.get(kernel, 0) for kernel in ATTENTION))


def count_training_flops(model, batch) -> Flops:
    """Of a forward and a backward pass over a training batch."""

    def step():
        loss = model.calculate_loss(batch)
        (sum(loss) if isinstance(loss, tuple) else loss).backward()

    model.train()
    flops = count_flops(step)
    model.zero_grad(set_to_none=True)
    return flops
