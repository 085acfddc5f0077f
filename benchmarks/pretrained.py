"""
benchmarks.pretrained
#####################
What pretrained weights are worth to the ranking: every variant against the same model without them, over all targets,
over cold ones, and over short histories.

    python benchmarks/pretrained.py --dataset=amazon-beauty --data_path=DIR --text_encoder=MODEL --seeds 1
    python benchmarks/pretrained.py --dataset=amazon-beauty --list
    python benchmarks/pretrained.py --dataset=amazon-beauty --tables-only

MODEL is a folder or a name at Hugging Face, as ``text_encoder`` and ``llm`` take it; variants that need one that is not
given are left out. Further ``--key=value`` settings go to every run below the variant's own. Every run is a process of
its own; finished ones are kept and not repeated, and of other settings or data only replaced with ``--again``. The
tables are written to ``OUTPUT/DATASET-pretrained/README.md``.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.lib.command_line import parse_with_settings, told
from benchmarks.lib.pretrained_variants import MODELS, VARIANTS
from benchmarks.lib.running import common_parser, conclude, run_all, seeds_of
from benchmarks.lib.runs import Run
from benchmarks.report.pretrained import GROUPS_FILE, report

STAGES = "stages.work"  # finished stages of all runs: an encoder reads the texts once


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the tables of what is there; 0, 1 if a run failed, 2 if it was asked for what
    cannot be."""
    given = _parse(arguments)
    folder = given.output / f"{given.dataset}-pretrained"
    if given.list:
        print(*(f"{variant.name}: {variant.meaning} ({', '.join(variant.settings)})" for variant in VARIANTS), sep="\n")
        return 0
    failed = []
    if not given.tables_only:
        runs = runs_of(given, folder)
        failed = run_all(runs, given.data_path, given.again, lambda missing: share_stages(missing, folder / STAGES))
        if runs:
            write_groups(folder / GROUPS_FILE, runs[0], given.data_path)
    return conclude(folder, lambda: report(folder, VARIANTS), failed)


def runs_of(given: argparse.Namespace, folder: Path) -> list[Run]:
    """The runs of all variants that can be had, seed by seed; their own settings have the last word."""
    models = {name: getattr(given, name) for name in MODELS}
    return [
        Run(variant.model, given.dataset, seed, folder, variant.name, (*given.settings, *own))
        for seed in seeds_of(given)
        for variant in given.variants
        if (own := variant.arguments(models)) is not None
    ]


def share_stages(runs: list[Run], shared: Path) -> None:
    """Give runs one folder for finished stages, by a link in the place where each has its own."""
    shared.mkdir(parents=True, exist_ok=True)
    for run in runs:
        place = run.work / "saved" / "stages"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(shared.resolve(), place)


def write_groups(path: Path, run: Run, data_path: str | None) -> None:
    """What the test target of every user is like, for all runs on a data set: training interactions of the item, and
    items of the history before it that are read."""
    from benchmarks.lib.held_out import require_one_target
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.settings.config import Config

    config = Config(run.model, run.dataset, arguments=run.arguments(data_path))
    require_one_target(config)
    data = load_data(config)
    training = data.train_dataset
    counts = np.bincount(training.histories.items, minlength=training.item_num)  # [N]
    users, interactions, history = [], [], []
    for rows, _, _, targets in data.test:
        users.append(rows[training.uid_field].numpy())
        interactions.append(counts[targets.numpy()])
        history.append(rows[training.item_list_length_field].numpy())
    np.savez_compressed(
        path,
        user=np.asarray(training.id2token(training.uid_field, np.concatenate(users)), dtype=str),
        interactions=np.concatenate(interactions).astype(np.int32),
        history=np.concatenate(history).astype(np.int32),
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = common_parser(__doc__, seeds=1)
    for name in MODELS:
        parser.add_argument(f"--{name}", metavar="MODEL", help="folder, or name at Hugging Face")
    parser.add_argument("--list", action="store_true", help="print the variants")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="those to run (all)")
    given = parse_with_settings(parser, arguments)
    known = {variant.name: variant for variant in VARIANTS}
    if unknown := set(given.variants or ()) - known.keys():
        parser.error(f"there is no variant {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    given.variants = [known[name] for name in given.variants or known]
    return given


if __name__ == "__main__":
    sys.exit(main())
