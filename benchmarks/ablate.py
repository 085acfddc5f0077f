"""
benchmarks.ablate
#################
What each part of ContRec is worth: its shipped settings against variants that change one part each.

    python benchmarks/ablate.py --dataset=ml-100k --seeds 3
    python benchmarks/ablate.py --dataset=ml-100k --variants ranking-only user-tokens-0 --epochs=20
    python benchmarks/ablate.py --list

Further ``--key=value`` settings go to every run below the variant's own; a control of another class takes those that
it knows. Every run is a process of its own; finished ones are kept and never repeated. The table is written to
``OUTPUT/DATASET-ablation/README.md``, a picture beside it.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ablate_report import draw, report
from compare import FIRST_SEED, common_parser, parse_with_settings, run_all
from runs import Run

RANDOM_VECTORS = "random_vectors.npy"  # in the working folder of a run, where it is found without a path of the machine


class Variant(NamedTuple):
    """A row of the table: what is changed against the shipped settings, and what that means."""

    name: str
    meaning: str
    settings: tuple[str, ...] = ()
    model: str = "ContRec"


# The first row is what all others are compared with. There is no row without tokens: no setting makes the language
# model read the learned item vectors alone. Tokens of random vectors come nearest: they tell items apart, no more.
VARIANTS = (
    Variant("shipped", "the settings of ContRec.yaml"),
    # item and user vectors
    Variant("vectors-lightgcn", "tokens from LightGCN vectors instead of an SVD", ("item_vectors=lightgcn",)),
    Variant("vectors-random", "control: tokens from random vectors", (f"item_vectors={RANDOM_VECTORS}",)),
    Variant("retrieval-from-vectors", "item vectors of the retrieval start at the SVD", ("item_vectors_init=vectors",)),
    Variant("retrieval-frozen", "item vectors of the retrieval stay at the SVD",
            ("item_vectors_init=vectors", "train_item_vectors=False")),
    # tokenizer
    Variant("tokenizer-plain", "a VAE with learned variance", ("tokenizer=plain",)),
    Variant("tokenizer-deterministic", "no noise in the tokenizer", ("tokenizer=deterministic",)),
    Variant("item-tokens-1", "one token an item, K = 1 instead of 2", ("item_tokens=1",)),
    Variant("item-tokens-4", "four tokens an item, K = 4 instead of 2", ("item_tokens=4",)),
    Variant("token-mask-0", "vectors not masked in the tokenizer's training", ("token_mask_ratio=0.0",)),
    Variant("token-mask-.3", "three times the mask", ("token_mask_ratio=0.3",)),
    # what the language model reads
    Variant("token-noise-off", "tokens without noise while the recommender trains", ("token_noise=False",)),
    Variant("user-tokens-0", "a prompt without the user", ("user_tokens=0",)),
    Variant("user-dropout-0", "user tokens never replaced in training", ("user_token_dropout=0.0",)),
    Variant("item-identity-off", "items read as tokens alone, without their learned vector", ("item_identity=False",)),
    Variant("history-20", "histories of 20 items", ("MAX_ITEM_LIST_LENGTH=20",)),
    Variant("history-50", "histories of 50 items", ("MAX_ITEM_LIST_LENGTH=50",)),
    Variant("history-400", "histories of 400 items", ("MAX_ITEM_LIST_LENGTH=400",)),
    Variant("window-context-50", "later windows of a long history begin with 50 items of context",
            ("window_context=50",)),
    # losses and head
    Variant("ranking-only", "no denoising: a plain ranking head", ("regression_weight=0.0", "dispersive_weight=0.0")),
    # Without a ranking loss nothing trains the item vectors as targets, so they stay where they start: at the SVD.
    Variant("diffusion-only", "no ranking loss: 16 samples of 20 steps, item vectors at the SVD",
            ("ranking_weight=0.0", "item_vectors_init=vectors", "train_item_vectors=False", "diffusion_steps=20",
             "diffusion_samples=16")),
    Variant("dispersive-0", "no dispersive loss", ("dispersive_weight=0.0",)),
    Variant("dispersive-.05", "half the dispersive loss", ("dispersive_weight=0.05",)),
    Variant("dispersive-.5", "five times the dispersive loss", ("dispersive_weight=0.5",)),
    Variant("dispersive-cosine", "InfoNCE over cosines", ("dispersive_loss=infonce_cosine",)),
    Variant("dispersive-hinge", "hinge instead of InfoNCE", ("dispersive_loss=hinge",)),
    Variant("dispersive-covariance", "covariance instead of InfoNCE", ("dispersive_loss=covariance",)),
    # retrieval and training
    Variant("repeat-bias-off", "repeats left to the vectors", ("repeat_bias=False",)),
    Variant("temperature-.02", "the learned temperature starts sharper than .05", ("temperature=0.02",)),
    Variant("temperature-.2", "the learned temperature starts flatter than .05", ("temperature=0.2",)),
    Variant("average-off", "the last weights instead of their moving average", ("average_decay=0.0",)),
    # controls
    Variant("SASRecAll", "control: RecBole's SASRec on the same windows", model="SASRecAll"),
    Variant("SASRecAll-repeat-bias", "the same with the repeat bias", ("repeat_bias=True",), model="SASRecAll"),
)
SHIPPED = VARIANTS[0]


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write table and picture of what is there; 0, or 1 if a run failed."""
    from recbole_contrec import UserError

    given = _parse(arguments)
    folder = given.output / f"{given.dataset}-ablation"
    failed = []
    try:
        if not given.tables_only:
            runs = [Run(variant.model, given.dataset, seed, folder, variant.name, settings_of(variant, given.settings))
                    for seed in range(FIRST_SEED, FIRST_SEED + given.seeds) for variant in given.variants]
            write_random_vectors([run for run in runs if not run.finished], given.data_path)
            failed = run_all(runs, given.data_path)
        text = report(folder, VARIANTS)
    except (UserError, ValueError) as error:
        print(*failed, f"error: {error}", sep="\n", file=sys.stderr)
        return 1
    (folder / "README.md").write_text(text)
    print(text)
    print("written:", folder / "README.md", draw(folder, VARIANTS))
    if failed:
        print(*failed, sep="\n", file=sys.stderr)
        return 1
    return 0


def listing() -> str:
    """All variants with settings and meaning, a line each."""
    width = max(len(variant.name) for variant in VARIANTS)
    return "\n".join(f"{variant.name:<{width}}  {variant.meaning}"
                     + (f" ({', '.join(variant.settings)})" if variant.settings else "") for variant in VARIANTS)


def settings_of(variant: Variant, further: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments of a variant's runs; its own come last and so have the last word.

    Args:
        further: for every run. ContRec gets all of them, so that a misspelt one is an error.
    """
    from recbole_contrec.registry import find_model, general_settings, properties_folders

    if variant.model != SHIPPED.model:
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
    from recbole_contrec.config import Config
    from recbole_contrec.data.loading import load_data

    given = dict(argument.split("=", 1) for argument in run.settings)
    given.update({"--data_path": data_path} if data_path else {})
    config = Config(run.model, run.dataset, arguments=[f"{key}={value}" for key, value in given.items()])
    dataset = load_data(config).dataset
    return [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]], config["vector_size"]


def _parse(arguments):
    parser = common_parser(__doc__)
    parser.add_argument("--list", action=_List, nargs=0, help="print the variants")
    parser.add_argument("--variants", nargs="+", choices=[variant.name for variant in VARIANTS], metavar="NAME",
                        help="those to run beside the shipped settings (all)")
    parser.add_argument("--tables-only", action="store_true", help="no runs, only table and picture of what is there")
    given = parse_with_settings(parser, arguments)
    given.variants = [variant for variant in VARIANTS
                      if variant is SHIPPED or not given.variants or variant.name in given.variants]
    return given


class _List(argparse.Action):
    """Like ``--help``: prints, and asks for no other option."""

    def __call__(self, parser, *_):
        print(listing())
        parser.exit()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, not an installed version
    sys.exit(main())
