"""
benchmarks.lib.trained
######################
One trained model that is measured in many ways: trained first or loaded, and a record that later calls go on with.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lib.asked import asked_for, differences, file_hashes
from benchmarks.lib.command_line import (
    Parser,
    name_of_a_folder,
    number,
    parse_with_settings,
    require_pictures,
    results_folder,
)
from benchmarks.lib.running import FIRST_SEED, write_report
from benchmarks.lib.runs import PATHS, RESULTS, Run

# Facts of the card that differ from number to number; the commit and the device of each are kept beside it.
OF_A_POINT = ("test_users_per_second", "peak_memory_mib", "peak_gpu_memory_mib", "commit", "device")


class Trained(NamedTuple):
    """A model to be measured (``LoadedRun``), and the folder for its record."""

    loaded: Any
    folder: Path


def measure_and_report(
    given: argparse.Namespace,
    kind: str,
    record: str,
    measure: Callable[[argparse.Namespace], Path],
    report: Callable[[dict], str],
    draw: Callable[[dict, Path], Path] | None = None,
) -> int:
    """Measure what is missing, unless the tables alone are wanted, then write tables and picture of what is there.

    Args:
        given: what :func:`parse` gave.
        kind: of the measurement, ``"dial"``.
        record: name of the file in the folder that ``measure`` gives.
        report: from a record to the README beside it.
        draw: from a record to a picture, in the file that it is given.

    Returns:
        int: 0.

    Raises:
        UserError: that was not possible.
    """
    if draw:
        require_pictures()
    folder = given.output.resolve() / f"{given.dataset}-{kind}" if given.tables_only else measure(given)
    content = read_record(folder / record)
    write_report(folder, report(content), [draw(content, folder / f"{kind}.png")] if draw else ())
    return 0


@contextmanager
def trained_model(given: argparse.Namespace, kind: str) -> Iterator[Trained]:
    """Load the checkpoint that was given, or train a model and keep it in ``OUTPUT/DATASET-KIND/saved``. The working
    directory is an empty one meanwhile, for RecBole's logs.

    Args:
        given: what :func:`parse` gave.
        kind: of the measurement, ``"dial"``.

    Raises:
        UserError: no such checkpoint, or a bad setting.
    """
    from benchmarks.lib.measuring import temporary_workplace
    from recbole_contrec import load_data_and_model

    output = given.output.resolve()
    checkpoint, settings = given.checkpoint and str(Path(given.checkpoint).resolve()), given.settings
    with temporary_workplace():
        if checkpoint is None:
            checkpoint, settings = train(given, output / f"{given.dataset}-{kind}" / "saved"), ()
        loaded = load_data_and_model(checkpoint, arguments=settings)
        yield Trained(loaded, output / f"{loaded.config['dataset']}-{kind}")


def train(given: argparse.Namespace, folder: Path) -> str:
    """Train a model, or go on with one that was begun; a finished one is only tested again.

    Returns:
        str: its checkpoint.

    Raises:
        UserError: the one that was begun has other settings or data.
    """
    from recbole_contrec import UserError, run
    from recbole_contrec.storage import checkpoint
    from recbole_contrec.training.keeping import LAST

    name = f"{vars(given).get('name') or given.model}-seed{given.seed}"  # some scripts let a row have a name
    begun = folder / name
    if (begun / LAST).is_file():
        asked = asked_for(Run(given.model, given.dataset, given.seed, folder, settings=given.settings), None)
        if different := differences({"settings": checkpoint.load(begun / LAST).record["settings"]}, asked):
            raise UserError(
                f"{begun} was trained with {'; '.join(different[:4])}: choose another --output"
                f"{' or --name' if 'name' in given else ''}, or remove it"
            )
    elif begun.is_dir():  # killed before there was anything to go on with
        shutil.rmtree(begun)
    result = run(
        given.model,
        given.dataset,
        resume=str(begun) if (begun / LAST).is_file() else None,
        arguments=[*given.settings, f"--seed={given.seed}", f"--checkpoint_dir={folder}", f"--run_name={name}"],
    )
    return result["checkpoint"]


def describe(loaded, turned: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What the record says about all numbers and about each, JSON-like and without paths of the machine.

    Args:
        turned: settings that every number has its own of.
    """
    from recbole_contrec.quick_start import settings_of
    from recbole_contrec.storage.stages import fingerprint
    from recbole_contrec.training.card import protocol_card

    card = protocol_card(loaded.config, loaded.data, loaded.trainer)
    weights = fingerprint(*(tensor.cpu().numpy() for tensor in loaded.model.state_dict().values()))
    settings = {key: value for key, value in settings_of(loaded.config).items() if key not in (*PATHS, *turned)}
    return {
        "of_all": {
            "card": {key: value for key, value in card.items() if key not in (*OF_A_POINT, *turned)},
            "settings": settings,
            "weights": weights[:16],
            "data": file_hashes(loaded.config, Path()),
        },
        "of_a_point": {key: card[key] for key in ("commit", "device")},
    }


def earlier(path: Path, about: dict) -> dict:
    """The record of an earlier call; empty without one.

    Args:
        about: what :func:`describe` gave.

    Raises:
        UserError: it is of another model, or of other settings.
    """
    from recbole_contrec import UserError

    if not path.is_file():
        return {}
    content, now = read_record(path), about["of_all"]
    changed = [key for key in now["settings"] if content["settings"].get(key) != now["settings"][key]]
    data = content.get("data", now["data"])  # earlier versions kept none
    if changed or content["weights"] != now["weights"] or data != now["data"]:
        what = (
            f"other {', '.join(changed)}" if changed else "other data" if data != now["data"] else "another checkpoint"
        )
        raise UserError(f"{path} holds points of {what}: choose another --output, or remove it")
    return content


def circumstances(card: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """What is ranked how, and where and at which commits the numbers of a record were measured."""
    commits = ", ".join(sorted({str(record["commit"]) for record in records}))
    devices = "; ".join(sorted({record["device"] for record in records}))
    return (
        f"{card['users']:,} users, {card['items']:,} items, {card['ranking']['test']} ranking, seen items "
        f"{'masked' if card['seen_items_masked'] else 'not masked'}. Measured on {devices}, commit {commits}."
    )


def read_record(path: Path) -> dict:
    """The content of a record.

    Raises:
        UserError: there is none, or it is damaged.
    """
    from recbole_contrec import UserError

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not {"card", "settings", "weights"} <= set(content):
            raise ValueError("no record")
    except FileNotFoundError:
        raise UserError(f"{path} is not there: nothing has been measured yet") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged, or no record of measurements ({type(error).__name__}): remove it, and they are made "
            "anew"
        ) from error
    return content


# command line


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every script that measures one trained model."""
    found = Parser(description)
    add = found.add_argument
    add("--checkpoint", help="folder of a run, or a checkpoint; without it a model is trained")
    add("--model", type=name_of_a_folder, help="to be trained (ContRec)")
    add("--dataset", type=name_of_a_folder, help="to train on; of the tables with --tables-only")
    add("--data_path", help="folder of data sets that RecBole does not ship")
    add("--seed", type=partial(number, int, 0, 2**32 - 1), help=f"of the training ({FIRST_SEED})")
    add("--output", type=results_folder, default=RESULTS, help="folder for results (benchmarks/results)")
    add("--tables-only", action="store_true", help="measure nothing, only write anew what is made of the record")
    return found


def parse(options: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Options of :func:`parser` and further ones, and as ``settings`` whatever else has the form ``--key=value``."""
    given = parse_with_settings(options, arguments)
    if given.checkpoint and (given.model or given.dataset or given.seed is not None):
        options.error("a checkpoint has its model, data set and seed: leave out --model, --dataset and --seed")
    if not given.dataset and (given.tables_only or not given.checkpoint):
        options.error("name a data set, --dataset=NAME" + ("" if given.tables_only else ", or a --checkpoint"))
    given.model = given.model or "ContRec"
    given.seed = FIRST_SEED if given.seed is None else given.seed
    given.settings += (f"--data_path={Path(given.data_path).resolve()}",) if given.data_path else ()
    return given
