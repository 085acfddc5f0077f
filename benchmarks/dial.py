"""
benchmarks.dial
###############
The speed-accuracy dial of a trained diffusion head: steps, samples, guidance and sampling noise need no new training.

    python benchmarks/dial.py --checkpoint=saved/RUN
    python benchmarks/dial.py --dataset=ml-100k --condition_dropout=0.1 --guidance 0 1 --sampling_noise 0 1

Without ``--checkpoint`` a model is trained first, with further ``--key=value`` settings, and kept in
``OUTPUT/DATASET-dial/saved``; with it such settings change how the model is evaluated. Every combination is measured on
validation and on test. ``OUTPUT/DATASET-dial/dial.json`` is written after each point, and a point that it holds is not
measured again, so the command can be stopped and given again. Table and picture are written beside it.
"""

import argparse
import json
import sys
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Iterable, NamedTuple

from tqdm import tqdm

from compare import FIRST_SEED
from dial_report import draw, report
from runs import PATHS, RESULTS

RECORD = "dial.json"
DIAL = ("diffusion_steps", "diffusion_samples", "guidance", "sampling_noise")  # settings; every point has its own
# Facts of the card that differ from point to point; the commit and the device of each are kept in its record.
OF_A_POINT = ("diffusion_steps", "diffusion_samples", "test_users_per_second", "peak_memory_mib", "peak_gpu_memory_mib",
              "commit", "device")


class Point(NamedTuple):
    """One position of the dial."""

    steps: int
    samples: int
    guidance: float
    sampling_noise: float  # eta

    def __str__(self):
        return f"{self.steps} steps, {self.samples} samples, w {self.guidance:g}, eta {self.sampling_noise:g}"


class Selection(NamedTuple):
    """Points that a head can do, and a message for each value of which it can do none."""

    points: list[Point]
    left_out: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then write table and picture; 0, or 1 if that was not possible."""
    from recbole_contrec import UserError

    given, settings = _parse(arguments)
    try:
        folder = given.output.resolve() / f"{given.dataset}-dial" if given.tables_only else measure_all(given, settings)
        content = read_record(folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = report(content)
    (folder / "README.md").write_text(text)
    print(text)
    print("written:", folder / "README.md", draw(content, folder / "dial.png"))
    return 0


def measure_all(given: argparse.Namespace, settings: list[str]) -> Path:
    """Train where no checkpoint is given, then measure every point that is not in the record yet.

    Returns:
        Path: the folder of the record.

    Raises:
        UserError: no such checkpoint, a model without a diffusion head, or a record of another model.
    """
    from measuring import temporary_workplace
    from recbole_contrec import UserError, load_data_and_model
    from recbole_contrec.model.contrec import ContRec

    output = given.output.resolve()
    settings = settings + ([f"--data_path={Path(given.data_path).resolve()}"] if given.data_path else [])
    checkpoint = given.checkpoint and str(Path(given.checkpoint).resolve())
    with temporary_workplace():  # for RecBole's logs
        if checkpoint is None:
            checkpoint, settings = train(given, settings, output / f"{given.dataset}-dial" / "saved"), []
        loaded = load_data_and_model(checkpoint, arguments=settings)
        if not isinstance(loaded.model, ContRec):
            raise UserError(f"{loaded.config['model']} has no diffusion head")
        folder = output / f"{loaded.config['dataset']}-dial"
        chosen = select(given, loaded.config["noise_levels"], loaded.model.head.none is not None)
        for message in chosen.left_out:
            print(message)
        measure_missing(loaded, chosen.points, given.limit, folder)
    return folder


def train(given: argparse.Namespace, settings: list[str], folder: Path) -> str:
    """Train a model, or go on with one that was begun; a finished one is only tested again.

    Returns:
        str: its checkpoint.
    """
    from recbole_contrec import run
    from recbole_contrec.trainer import LAST

    name = f"{given.model}-seed{given.seed}"
    begun = folder / name
    result = run(given.model, given.dataset, resume=str(begun) if (begun / LAST).is_file() else None,
                 arguments=[*settings, f"--seed={given.seed}", f"--checkpoint_dir={folder}", f"--run_name={name}"])
    return result["checkpoint"]


def select(given: argparse.Namespace, levels: int, guided: bool) -> Selection:
    """All combinations that a head can do, each once: one step adds no noise, whatever the sampling noise.

    Args:
        levels: of noise, that the head was trained with.
        guided: whether it was trained without condition as well.
    """
    steps = [number for number in given.steps if number <= levels]
    guidance = [weight for weight in given.guidance if guided or not weight]
    left_out = [f"left out: {number} steps, the head has {levels} noise levels" for number in given.steps
                if number > levels]
    left_out += [f"left out: guidance {weight:g}, which needs a head trained with condition_dropout > 0"
                 for weight in given.guidance if weight not in guidance]
    combinations = product(guidance, given.sampling_noise, given.samples, steps)
    points = [Point(step, samples, weight, noise if step > 1 else 0.0) for weight, noise, samples, step in combinations]
    return Selection(list(dict.fromkeys(points)), left_out)


def measure_missing(loaded, points: Iterable[Point], limit: float, folder: Path) -> None:
    """Measure the points that the record lacks, or skipped for a lower limit; the record is written after each.

    Raises:
        UserError: the folder holds points of another model, or of other settings.
    """
    from recbole_contrec.results import write_json

    about = describe(loaded)
    records = {point_of(record): record for record in earlier_points(folder, about)}
    missing = [point for point in points if "valid" not in (record := records.get(point, {}))
               and record.get("estimated_seconds", 0) <= limit]
    with tqdm(missing, unit="point", dynamic_ncols=True) as bar:
        for point in bar:
            bar.set_description(str(point))
            records[point] = {**measure(loaded, point, limit), **about["of_a_point"]}
            write_json(folder / RECORD, {**about["of_all"], "points": list(records.values())})


def describe(loaded) -> dict[str, dict[str, Any]]:
    """What the record says about all points and about each, JSON-like and without paths of the machine."""
    from recbole_contrec.card import protocol_card
    from recbole_contrec.quick_start import settings_of
    from recbole_contrec.stages import fingerprint

    card = protocol_card(loaded.config, loaded.data, loaded.trainer)
    weights = fingerprint(*(tensor.cpu().numpy() for tensor in loaded.model.state_dict().values()))
    settings = {key: value for key, value in settings_of(loaded.config).items() if key not in (*PATHS, *DIAL)}
    return {"of_all": {"card": {key: value for key, value in card.items() if key not in OF_A_POINT},
                       "settings": settings, "weights": weights[:16]},
            "of_a_point": {key: card[key] for key in ("commit", "device")}}


def earlier_points(folder: Path, about: dict) -> list[dict]:
    """The points of an earlier call.

    Raises:
        UserError: they are of another model, or of other settings.
    """
    from recbole_contrec import UserError

    if not (folder / RECORD).is_file():
        return []
    content = read_record(folder)
    now = about["of_all"]
    changed = [key for key in now["settings"] if content["settings"].get(key) != now["settings"][key]]
    if changed or content["weights"] != now["weights"]:
        what = f"other {', '.join(changed)}" if changed else "another checkpoint"
        raise UserError(f"{folder / RECORD} holds points of {what}: choose another --output, or remove it")
    return content["points"]


def read_record(folder: Path) -> dict:
    """The content of the record.

    Raises:
        UserError: there is none.
    """
    from recbole_contrec import UserError

    try:
        return json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder / RECORD} is not there: nothing has been measured yet") from None


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
    return {**point._asdict(), "valid": evaluate(loaded.trainer, loaded.data.valid),
            "test": evaluate(loaded.trainer, loaded.data.test)}


def turn(loaded, point: Point) -> None:
    """Set a trained model to a point: it reads these from its configuration whenever it generates."""
    loaded.config["diffusion_steps"], loaded.config["diffusion_samples"] = point.steps, point.samples
    loaded.config["guidance"], loaded.config["sampling_noise"] = point.guidance, point.sampling_noise


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint", help="folder of a run, or a checkpoint; without it a model is trained")
    add("--model", help="to be trained (ContRec)")
    add("--dataset", help="to train on; of the tables with --tables-only")
    add("--data_path", help="folder of data sets that RecBole does not ship")
    add("--seed", type=int, help=f"of the training ({FIRST_SEED})")
    add("--steps", nargs="+", type=partial(_number, int, 1, None), default=[1, 2, 5, 10, 20, 50], help="noise steps")
    add("--samples", nargs="+", type=partial(_number, int, 1, None), default=[1, 4, 16, 64], help="of a preference")
    add("--guidance", nargs="+", type=partial(_number, float, 0, None), default=[0.0, 1.0, 2.0], help="weights w")
    add("--sampling_noise", nargs="+", type=partial(_number, float, 0, 1), default=[0.0, 1.0],
        help="0 for DDIM to 1 for DDPM (eta)")
    add("--limit", type=float, default=120, metavar="SECONDS", help="a point that would take longer is skipped (120)")
    add("--output", type=Path, default=RESULTS, help="folder for results (benchmarks/results)")
    add("--tables-only", action="store_true", help="measure nothing, only table and picture of what is there")
    given, settings = parser.parse_known_args(arguments)
    odd = [argument for argument in settings if not argument.startswith("--") or "=" not in argument]
    if odd:
        parser.error(f"{', '.join(odd)}: settings are --key=value")
    if given.checkpoint and (given.model or given.dataset or given.seed is not None):
        parser.error("a checkpoint has its model, data set and seed: leave out --model, --dataset and --seed")
    if not given.dataset and (given.tables_only or not given.checkpoint):
        parser.error("name a data set, --dataset=NAME" + ("" if given.tables_only else ", or a --checkpoint"))
    given.model = given.model or "ContRec"
    given.seed = FIRST_SEED if given.seed is None else given.seed
    return given, settings


def _number(kind, low, high, text):
    value = kind(text)
    if value < low or high is not None and value > high:
        raise argparse.ArgumentTypeError(f"{text} is not {f'from {low} to {high}' if high else f'at least {low}'}")
    return value


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, not an installed version
    sys.exit(main())
