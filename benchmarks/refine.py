"""
benchmarks.refine
#################
What it is worth that a model improves its own identifiers: with it, without it, and with controls, by initial
tokenizer.

    python benchmarks/refine.py --dataset=ml-100k --seeds 3
    python benchmarks/refine.py --dataset=ml-100k --semantic_ids rqvae clusters --epochs=30 --refine_every=5

For each way to initial identifiers and each seed, five runs of the same number of epochs, none of which stops early:
``TIGER`` keeps the identifiers that it starts with; ``aligned`` is SIIT-states that never refines them;
``SIIT-states``; ``written`` is SIIT, where the model writes new identifiers behind descriptions; and ``random``,
SIIT-states that deals the new identifiers out at random among the items that move. ``--kinds`` takes some of them. Rows
are named after both, ``rqvae-SIIT-states``. Further ``--key=value`` settings go to every run that reads them. Every run
is a process of its own; finished ones are kept and not repeated, and of other settings or data only replaced with
``--again``. The tables are written to ``OUTPUT/DATASET-refine/README.md``, a picture and ``report.html``
beside it.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.lib.command_line import parse_with_settings, told
from benchmarks.lib.running import common_parser, conclude, run_all, seeds_of
from benchmarks.lib.runs import Run
from benchmarks.report.page import write_page
from benchmarks.report.refine import ORDER, OWN_START, draw, ordered_rows, report

IDENTIFIERS = ("rqvae", "rkmeans", "pq", "clusters", "random")


class Kind(NamedTuple):
    """One of the runs that are compared for every tokenizer.

    Attributes:
        name: of the row, behind the tokenizer's.
        model: as ``--model`` takes it.
        settings: its own, without the dashes.
    """

    name: str
    model: str
    settings: dict[str, str] = {}


QUANTISED = {"refine_from": "histories"}
KINDS = (
    Kind(OWN_START, "TIGER"),
    Kind("aligned", "SIIT-states", {"refine_rounds": "0"}),
    Kind("SIIT-states", "SIIT-states", QUANTISED),
    Kind("written", "SIIT", {"refine_from": "descriptions"}),
    Kind("random", "SIIT-states", {**QUANTISED, "refinement": "random", "refine_tolerance": "~"}),
)
PATIENT = {"stopping_step": "100000"}  # early stopping would give every run a budget of its own


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write tables and picture of what is there; 0, 1 if a run failed, 2 if it was asked for
    what cannot be."""
    given = _parse(arguments)
    folder = given.output / f"{given.dataset}-refine"
    failed = [] if given.tables_only else run_all(runs_of(given, folder), given.data_path, given.again)
    return conclude(
        folder, lambda: report(folder), failed, lambda: [draw(folder), write_page(folder, ordered_rows(folder))]
    )


def runs_of(given: argparse.Namespace, folder: Path) -> list[Run]:
    """All runs, seed by seed; what makes a run its row's has the last word."""
    further = dict(argument[2:].split("=", 1) for argument in given.settings)
    reads_texts = "text_encoder" not in further or "text" in _item_vectors(given, further)
    return [
        Run(
            kind.model,
            given.dataset,
            seed,
            folder,
            f"{identifiers}-{kind.name}",
            tuple(
                f"--{key}={value}"
                for key, value in {
                    **PATIENT,
                    **known(further, kind, reads_texts),
                    "semantic_ids": identifiers,
                    **kind.settings,
                }.items()
            ),
        )
        for seed in seeds_of(given)
        for identifiers in given.semantic_ids
        for kind in KINDS
        if kind.name in given.kinds
    ]


def _item_vectors(given: argparse.Namespace, settings: dict[str, str]) -> str:
    """What TIGER's identifiers come from on this data set."""
    from recbole_contrec.settings.config import Config

    data = [f"--data_path={Path(given.data_path).absolute()}"] if given.data_path else []
    return settings.get("item_vectors") or Config("TIGER", given.dataset, arguments=data)["item_vectors"]


def known(settings: dict[str, str], kind: Kind, reads_texts: bool) -> dict[str, str]:
    """Those settings that a kind of run reads: TIGER none of self-improvement, nor an encoder where its identifiers
    come from no texts, and others only those of their way to new identifiers."""
    if kind.model != "TIGER":
        from recbole_contrec.model.semantic_ids.self_improvement_settings import READ_BY_DESCRIPTIONS, READ_BY_HISTORIES

        unread = READ_BY_HISTORIES if kind.settings.get("refine_from") == "descriptions" else READ_BY_DESCRIPTIONS
        return {key: value for key, value in settings.items() if key not in unread}
    unread = ("refine", "alignment", "item_descriptions", "description_") + ("text_encoder",) * (not reads_texts)
    return {key: value for key, value in settings.items() if not key.startswith(unread)}


def _parse(arguments):
    parser = common_parser(__doc__)
    parser.add_argument(
        "--semantic_ids",
        nargs="+",
        choices=IDENTIFIERS,
        default=["rqvae", "clusters"],
        help="initial tokenizers (rqvae clusters)",
    )
    parser.add_argument("--kinds", nargs="+", choices=ORDER, default=ORDER, help="of runs (all)")
    return parse_with_settings(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
