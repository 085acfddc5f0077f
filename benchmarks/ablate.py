"""
benchmarks.ablate
#################
What each part of a model is worth: its shipped settings against variants that change one part each.

    python benchmarks/ablate.py --model=ContRec --dataset=ml-100k --seeds 3
    python benchmarks/ablate.py --model=ContRec --dataset=ml-100k --variants ranking-only user-tokens-0 --epochs=20
    python benchmarks/ablate.py --model=DeftRec --dataset=ml-100k --list

Further ``--key=value`` settings go to every run below the variant's own; a control of another class takes those that
it knows. Every run is a process of its own; finished ones are kept and not
repeated, and of other settings or data only replaced with ``--again``. The table is written to
``OUTPUT/DATASET-ablation-MODEL/README.md``, a picture beside it.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.lib.command_line import parse_with_settings, require_pictures, told
from benchmarks.lib.running import common_parser, conclude, run_all, seeds_of
from benchmarks.lib.runs import Run
from benchmarks.lib.variants import ABLATIONS, RANDOM_VECTORS, SHIPPED, Variant
from benchmarks.report.ablate import draw, report


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write table and picture of what is there; 0, 1 if a run failed, 2 if it was asked for
    what cannot be."""
    given = _parse(arguments)
    folder = given.output / f"{given.dataset}-ablation-{given.model}"
    if given.list:
        print(listing(ABLATIONS[given.model]))
        return 0
    require_pictures()
    runs = [
        Run(
            variant.model or given.model,
            given.dataset,
            seed,
            folder,
            variant.name,
            settings_of(variant, given.settings),
        )
        for seed in seeds_of(given)
        for variant in given.variants
    ]
    failed = []
    if not given.tables_only:
        failed = run_all(
            runs, given.data_path, given.again, lambda missing: write_random_vectors(missing, given.data_path)
        )
    variants = ABLATIONS[given.model]
    return conclude(folder, lambda: report(folder, variants), failed, lambda: [draw(folder, variants)])


def listing(variants: Sequence[Variant]) -> str:
    """Variants with settings and meaning, a line each."""
    width = max(len(variant.name) for variant in variants)
    return "\n".join(
        f"{variant.name:<{width}}  {variant.meaning}"
        + (f" ({', '.join(variant.settings)})" if variant.settings else "")
        for variant in variants
    )


def settings_of(variant: Variant, further: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments of a variant's runs; its own come last and so have the last word.

    Args:
        further: for every run. All but controls get all of them, so that a misspelt one is an error.
    """
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model, general_settings

    if variant.model:
        folders = properties_folders()
        known = {**general_settings(folders)[0], **find_model(variant.model, folders).settings}
        further = tuple(argument for argument in further if argument[2:].partition("=")[0] in known)
    return *further, *(f"--{setting}" for setting in variant.settings)


def write_random_vectors(runs: list[Run], data_path: str | None) -> None:
    """Give those runs that ask for random item vectors a file of them, drawn from the run's seed."""
    tokens = None
    for run in runs:
        if f"--item_vectors={RANDOM_VECTORS}" not in run.settings:
            continue
        if tokens is None:
            tokens, size = _items(run, data_path)
        run.work.mkdir(parents=True, exist_ok=True)
        path = run.work / RANDOM_VECTORS
        vectors = np.random.default_rng(run.seed).standard_normal((len(tokens), size), dtype=np.float32)
        np.save(path, vectors)
        path.with_suffix(".tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def _items(run, data_path):
    """Names of all items of a run's data set, and the width of their vectors."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.settings.config import Config

    given = dict(argument.split("=", 1) for argument in run.settings)
    given.update({"--data_path": data_path} if data_path else {})
    config = Config(run.model, run.dataset, arguments=[f"{key}={value}" for key, value in given.items()])
    dataset = load_data(config).dataset
    return [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]], config["vector_size"]


def _parse(arguments):
    parser = common_parser(__doc__)
    parser.add_argument("--model", choices=ABLATIONS, required=True)
    parser.add_argument("--list", action="store_true", help="print the variants")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="those to run beside the shipped settings (all)")
    given = parse_with_settings(parser, arguments)
    names = [variant.name for variant in ABLATIONS[given.model]]
    if unknown := set(given.variants or ()) - set(names):
        parser.error(f"{given.model} has no variant {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    given.variants = [
        variant
        for variant in ABLATIONS[given.model]
        if variant is SHIPPED or not given.variants or variant.name in given.variants
    ]
    return given


if __name__ == "__main__":
    sys.exit(main())
