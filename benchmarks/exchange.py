"""
benchmarks.exchange
###################
What processes that train one model send each other in a step, counted, and what a step of several GPUs would take,
calculated from it::

    python -m benchmarks.exchange --model=ContRec --dataset=ml-1m --steps=5

The step of one process is measured here, in core-seconds. That of several is a calculation: the step divided by their
number, and behind it, without any overlap, what they send at a given rate. A GPU that waits for anything else is
slower.
"""

import argparse
import itertools
from time import process_time
from typing import Any, NamedTuple

RATES = {"GPUs of one machine, 150 GB/s": 150e9, "network, 100 Gbit/s": 12.5e9}  # assumed, in bytes a second
GOOD = 7 / 8  # of the speed that so many processes could have at best


class Exchange(NamedTuple):
    """What a step of the optimizer takes of one process, and what several would exchange in it, in bytes."""

    seconds: float  # of a whole batch in one process
    replicated: int  # gradients of what every process holds, which are summed
    blocks: int = 0  # weights of what is in parts, which are put together twice a pass, forward and backward
    trained: int = 0  # their gradients, which are summed and dealt out in every pass
    passes: int = 1  # of the language model in a step

    def sent(self, processes: int) -> float:
        """Bytes that each process sends in a step around a ring, which no other way of exchanging undercuts (Patarasuk
        and Yuan 2009): a sum is dealt out and put together, either of which sends all parts but one."""
        share = (processes - 1) / processes
        return share * (2 * self.replicated + self.passes * (2 * self.blocks + self.trained))

    def step(self, processes: int, rate: float) -> float:
        """Seconds of a step of several processes, at a rate in bytes a second."""
        return self.seconds / processes + self.sent(processes) / rate

    def needed(self, processes: int, rate: float, share: float = GOOD) -> float:
        """Seconds that a step of one process must take for several to reach a share of their best speed."""
        return self.sent(processes) / rate * processes * share / (1 - share)


def counted(model: Any, sharded: bool, seconds: float = 0.0, passes: int = 1) -> Exchange:
    """What a model makes processes exchange.

    Args:
        sharded: whether its language model would be in parts.
    """
    inside = set()
    if sharded:
        from recbole_contrec.backbone.blocks import blocks_of

        inside = {id(p) for block in blocks_of(model.backbone._whole)[1] for p in block.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    outside = [p for p in trained if id(p) not in inside]
    return Exchange(
        seconds,
        replicated=4 * (len(outside) + sum(p.numel() for p in outside)),  # a flag each, whether anybody has a gradient
        blocks=sum(p.numel() * p.itemsize for p in model.parameters() if id(p) in inside),
        trained=sum(p.numel() * p.itemsize for p in trained if id(p) in inside),
        passes=passes,
    )


def main(arguments: list[str] | None = None) -> dict[str, Exchange]:
    """Measure and print; settings of a run go through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[5], allow_abbrev=False)
    parser.add_argument("--model", default="ContRec")
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--steps", type=int, default=5, help="steps to time, after one that is not; 0 counts alone")
    parser.add_argument("--processes", type=int, default=8)
    given, settings = parser.parse_known_args(arguments)
    loaded = _assembled(given.model, given.dataset, settings)
    seconds, passes = _measured(loaded, given.steps) if given.steps else (0.0, 1)
    ways = {"whole": counted(loaded.model, False, seconds, passes)}
    if loaded.config["llm"]:
        ways["in parts"] = counted(loaded.model, True, seconds, passes)
    if given.steps:
        print(f"one process: {seconds:.2f} core-seconds a step, {passes} passes of the language model")
    for name, exchange in ways.items():
        print(f"{name}: {exchange._asdict()}, each of {given.processes} sends {exchange.sent(given.processes):,.0f}")
        for place, rate in RATES.items():
            sent, needed = exchange.sent(given.processes) / rate, exchange.needed(given.processes, rate)
            print(f"  {place}: {sent:.2g} s of sending, {GOOD:.1%} of the best speed from steps of {needed:.2g} s on")
            if given.steps:
                print(f"    a step of {exchange.step(given.processes, rate):.4g} s")
    return ways


def _assembled(model: str, dataset: str, settings: list[str]) -> Any:
    """Without the stages before training: other numbers in the same places."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.loaded_run import assemble
    from recbole_contrec.settings.config import Config

    config = Config(model, dataset, arguments=settings)
    return assemble(config, load_data(config))


def _measured(loaded: Any, steps: int) -> tuple[float, int]:
    """Core-seconds and passes of a step."""
    passes: list[int] = []
    backbone = getattr(loaded.model, "backbone", loaded.model)
    body = getattr(backbone, "_body", backbone)
    hook = body.register_forward_pre_hook(lambda *_: passes.append(1))
    spent = []
    for batch in itertools.islice(loaded.data.train, 1 + steps):
        start = process_time()
        loaded.trainer.optimizer.zero_grad()
        sum(loaded.model.train().calculate_loss(batch.to(loaded.trainer.device))).backward()
        loaded.trainer.step()
        spent.append(process_time() - start)
    hook.remove()
    return sum(spent[1:]) / max(1, len(spent) - 1), max(1, round(len(passes) / len(spent)))


if __name__ == "__main__":
    main()
