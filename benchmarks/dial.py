"""
benchmarks.dial
###############
The speed-accuracy dial of a trained diffusion head: steps, samples, guidance and sampling noise need no new training.

    python benchmarks/dial.py --checkpoint=saved/RUN
    python benchmarks/dial.py --dataset=ml-100k --noisy_skip=True --condition_dropout=0.1 --guidance 0 1 --ddim_eta 0 1

Without ``--checkpoint`` a model is trained first, with further ``--key=value`` settings, and kept in
``OUTPUT/DATASET-dial/saved``; with it such settings change how the model is evaluated. Every combination is measured on
validation and on test. ``OUTPUT/DATASET-dial/dial.json`` is written after each point, and a point that it holds is not
measured again, so the command can be stopped and given again. Table and picture are written beside it.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.lib.command_line import number, told
from benchmarks.lib.trained import describe, earlier, measure_and_report, parse, parser, trained_model
from benchmarks.report.dial import RECORD, draw, report

DIAL = ("sampling_steps", "num_samples", "guidance", "ddim_eta")  # settings; every point has its own


class Point(NamedTuple):
    """One position of the dial."""

    steps: int
    samples: int
    guidance: float
    ddim_eta: float  # eta

    def __str__(self):
        return f"{self.steps} steps, {self.samples} samples, w {self.guidance:g}, eta {self.ddim_eta:g}"


class Selection(NamedTuple):
    """Points that a head can do, and a message for each value of which it can do none."""

    points: list[Point]
    left_out: list[str]


@told
def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then write table and picture; 0, or 2 if that was not possible."""
    return measure_and_report(_parse(arguments), "dial", RECORD, measure_all, report, draw)


def measure_all(given: argparse.Namespace) -> Path:
    """Train where no checkpoint is given, then measure every point that is not in the record yet.

    Returns:
        Path: the folder of the record.

    Raises:
        UserError: no such checkpoint, a model without a diffusion head, or a record of another model.
    """
    from recbole_contrec import UserError
    from recbole_contrec.model.contrec import ContRec

    with trained_model(given, "dial") as (loaded, folder):
        if not isinstance(loaded.model, ContRec):
            raise UserError(f"{loaded.config['model']} has no diffusion head")
        chosen = select(given, loaded.config["noise_levels"], loaded.model.head.none is not None)
        for message in chosen.left_out:
            print(message)
        measure_missing(loaded, chosen.points, given.limit, folder)
    return folder


def select(given: argparse.Namespace, levels: int, guided: bool) -> Selection:
    """All combinations that a head can do, each once: one step adds no noise, whatever the sampling noise.

    Args:
        levels: of noise, that the head was trained with.
        guided: whether it was trained without condition as well.
    """
    steps = [number for number in given.steps if number <= levels]
    guidance = [weight for weight in given.guidance if guided or not weight]
    left_out = [
        f"left out: {number} steps, the head has {levels} noise levels" for number in given.steps if number > levels
    ]
    left_out += [
        f"left out: guidance {weight:g}, which needs a head trained with condition_dropout > 0"
        for weight in given.guidance
        if weight not in guidance
    ]
    combinations = product(guidance, given.ddim_eta, given.samples, steps)
    points = [Point(step, samples, weight, noise if step > 1 else 0.0) for weight, noise, samples, step in combinations]
    return Selection(list(dict.fromkeys(points)), left_out)


def measure_missing(loaded, points: Iterable[Point], limit: float, folder: Path) -> None:
    """Measure the points that the record lacks, or skipped for a lower limit; the record is written after each.

    Raises:
        UserError: the folder holds points of another model, or of other settings.
    """
    from recbole_contrec.training.results import write_json

    about = describe(loaded, DIAL)
    records = {point_of(record): record for record in earlier(folder / RECORD, about).get("points", ())}
    missing = [
        point
        for point in points
        if "valid" not in (record := records.get(point, {})) and record.get("estimated_seconds", 0) <= limit
    ]
    with tqdm(missing, unit="point", dynamic_ncols=True) as bar:
        for point in bar:
            bar.set_description(str(point))
            records[point] = {**measure(loaded, point, limit), **about["of_a_point"]}
            write_json(folder / RECORD, {**about["of_all"], "points": list(records.values())})


def point_of(record: dict) -> Point:
    """The point that a record is about."""
    return Point(*(record[field] for field in Point._fields))


def measure(loaded, point: Point, limit: float) -> dict[str, Any]:
    """NDCG@10 and users a second of one point on both parts, or what it would take where that is over the limit.

    Args:
        limit: in seconds, for both parts together.
    """
    turn(loaded, point)
    estimated = estimate_seconds(loaded)
    if estimated > limit:
        return {**point._asdict(), "estimated_seconds": round(estimated, 1)}
    loaded.trainer.eval_collector.data_collect(loaded.data.train)
    return {
        **point._asdict(),
        "valid": evaluate(loaded.trainer, loaded.data.valid),
        "test": evaluate(loaded.trainer, loaded.data.test),
    }


def turn(loaded, point: Point) -> None:
    """Set a trained model to a point."""
    from recbole_contrec.model.parts.settings import SamplingSettings

    loaded.model.sampling = SamplingSettings(point.steps, point.samples, point.guidance, point.ddim_eta)


def estimate_seconds(loaded) -> float:
    """What validation and test will take, from the first batch of validation; it also warms up."""
    import torch

    users = next(iter(loaded.data.valid))[0].to(loaded.config["device"])
    start = perf_counter()
    with torch.no_grad():
        loaded.model.full_sort_predict(users).sum().item()  # .item() waits for a GPU
    seconds_a_user = (perf_counter() - start) / len(users)
    return seconds_a_user * (loaded.data.valid.sample_size + loaded.data.test.sample_size)


def evaluate(trainer, part) -> dict[str, float]:
    """Accuracy and speed on one part of the data."""
    metrics = trainer.evaluate(part, load_best_model=False)
    return {"ndcg@10": float(metrics["ndcg@10"]), "users_per_second": round(trainer.evaluation_speed, 1)}


def _parse(arguments):
    options = parser(__doc__)
    add = options.add_argument
    add("--steps", nargs="+", type=partial(number, int, 1, None), default=[1, 2, 5, 10, 20, 50], help="noise steps")
    add("--samples", nargs="+", type=partial(number, int, 1, None), default=[1, 4, 16, 64], help="of a preference")
    add("--guidance", nargs="+", type=partial(number, float, 0, None), default=[0.0, 1.0, 2.0], help="weights w")
    add(
        "--ddim_eta",
        nargs="+",
        type=partial(number, float, 0, 1),
        default=[0.0, 1.0],
        help="0 for DDIM to 1 for DDPM (eta)",
    )
    add(
        "--limit",
        type=partial(number, float, 0, None),
        default=120,
        metavar="SECONDS",
        help="a point that would take longer is skipped (120)",
    )
    return parse(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
