"""
benchmarks.answers
##################
How often a language model's answers name the right category, and what its words are worth in the ranking.

    python benchmarks/answers.py --model=ContRec --dataset=ml-100k --seeds 3 --answer_weight=0.3 --prompt_text=bag
    python benchmarks/answers.py --checkpoint=saved/RUN --text_weight 0 0.05 0.1 0.2 --text_bonus 0 0.05 0.1

Without ``--checkpoint`` a model is trained for every seed first, with further ``--key=value`` settings, and kept in
``OUTPUT/DATASET-answers/saved``; with it such settings change how the model is evaluated. Its answers are counted, and
it ranks by its vectors alone, with every bonus, with every weight, and by the likelihood of the texts alone, on
validation and on test. ``OUTPUT/DATASET-answers/ROW/seed2020.json`` is written after each of these forms, and what it
holds is not measured again, so the command can be stopped and given again; ROW is the model's name, or that of
``--name``. What every form gives the users of the test stands beside it in ``seed2020.npz``. The tables are written to
``OUTPUT/DATASET-answers/README.md``. Where ``OUTPUT/DATASET/`` holds runs of the same model and seeds (``compare.py``),
or ``OUTPUT/DATASET-pretrained/`` does (``pretrained.py``), that differ by the words alone, they stand in the tables as
the model without words.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.lib.command_line import name_of_a_folder, number, told
from benchmarks.lib.generated_answers import measure_answers
from benchmarks.lib.running import write_report
from benchmarks.lib.trained import describe, earlier, parse, parser, trained_model
from benchmarks.report.answers import ALONE, VECTORS, read_rows, report, title

SETTINGS = ("text_bonus", "text_weight")  # every form has its own
TOP = 10


class Form(NamedTuple):
    """A way to rank: by the vectors alone, by the text alone, or by both with a value of a setting."""

    kind: str
    value: float = 0.0

    def __str__(self):
        return title(*self)


class Ranked(NamedTuple):
    """What a form gives every target of a part, arrays [n]."""

    users: np.ndarray
    ndcg: np.ndarray
    hits: np.ndarray

    def as_dict(self) -> dict[str, float]:
        """Means, JSON-like."""
        return {f"ndcg@{TOP}": float(self.ndcg.mean()), f"hit@{TOP}": float(self.hits.mean())}


@told
def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then write the tables; 0, or 2 if that was not possible."""
    given = _parse(arguments)
    folder = given.output.resolve() / f"{given.dataset}-answers" if given.tables_only else measure_all(given)
    write_report(folder, report(read_rows(folder)))
    return 0


def measure_all(given: argparse.Namespace) -> Path:
    """Train where no checkpoint is given, then measure what the records lack, seed by seed.

    Returns:
        Path: the folder of all rows.

    Raises:
        UserError: no such checkpoint, a model that says nothing, or a record of another model.
    """
    from recbole_contrec import Config, UserError

    if given.checkpoint is None:  # found before the training, not after it
        refuse(Config(given.model, given.dataset, arguments=given.settings))
    for seed in range(given.seed, given.seed + given.seeds):
        with trained_model(argparse.Namespace(**{**vars(given), "seed": seed}), "answers") as (loaded, folder):
            refuse(loaded.config)
            if loaded.model.language.categories is None:
                raise UserError(
                    f"{loaded.config['dataset']} has no category that an answer could name: name a field with "
                    "--category_field"
                )
            row = folder / (given.name or loaded.config["model"])
            measure_missing(
                loaded, forms(given.text_bonus, given.text_weight), row / f"seed{loaded.config['seed']}", given.users
            )
    return folder


def refuse(config) -> None:
    """Stop where there is nothing to measure.

    Raises:
        UserError: a model that has not learned to answer, or a ranking of less than the whole catalogue.
    """
    from recbole_contrec import UserError

    if not config["answer_weight"]:  # other models do not have the setting
        raise UserError(
            f"{config['model']} has not learned to answer: train one that does with answer_weight above 0, "
            "for instance --model=ContRec --answer_weight=0.1"
        )
    if set(config["eval_args"]["mode"].values()) != {"full"}:
        raise UserError("the whole catalogue is ranked here: leave eval_args.mode at full")


def forms(bonuses: list[float], weights: list[float]) -> list[Form]:
    """All ways to rank, each once; nothing added is the vectors alone. Without weights the likelihoods of the texts are
    not wanted at all."""
    found = [Form(kind, value) for kind, values in zip(SETTINGS, (bonuses, weights)) for value in values if value]
    alone = [Form(ALONE)] * any(weights)
    return list(dict.fromkeys([Form(VECTORS), *found, *alone]))


def measure_missing(loaded, wanted: list[Form], path: Path, users: int | None = None) -> None:
    """Count the answers and rank in the forms that a record lacks; it is written after each.

    Args:
        path: of the record, without an ending.
        users: how many of each part are drawn; None for all.

    Raises:
        UserError: it holds numbers of another model, or of other settings.
    """
    from recbole_contrec import UserError
    from recbole_contrec.training.results import write_json

    file, arrays = path.with_suffix(".json"), path.with_suffix(".npz")
    about = describe(loaded, SETTINGS)
    about["of_all"]["drawn_users"] = users  # None for all
    content = earlier(file, about)
    if content and content["drawn_users"] != users:
        raise UserError(
            f"{file} holds numbers of {content['drawn_users'] or 'all'} users, not {users or 'all'}: choose another "
            "--name or --output, or remove it"
        )
    records = {form_of(record): record for record in content.get("forms", ())}
    if not (missing := [form for form in wanted if form not in records]):
        return
    parts = {"valid": drawn(loaded, loaded.data.valid, users), "test": drawn(loaded, loaded.data.test, users)}
    loaded.trainer.valid_data = parts["valid"]  # what tells validation from test where seen items are masked
    said = content.get("said") or {
        **{name: measure_answers(loaded, part) for name, part in parts.items()},
        **about["of_a_point"],
    }
    loaded.trainer.eval_collector.data_collect(loaded.data.train)
    loaded.trainer.folder = Path("ranks").absolute()  # not among the runs that are kept
    path.parent.mkdir(parents=True, exist_ok=True)
    of_users = dict(np.load(arrays)) if arrays.is_file() else {}
    speeds = {form: speed(loaded, form, parts["test"]) for form in missing}
    with read_once(loaded.model, missing), tqdm(missing, unit="form", dynamic_ncols=True) as bar:
        for form in bar:
            bar.set_description(str(form))
            ranked = {name: rank(loaded, form, part) for name, part in parts.items()}
            of_users.update({"user": ranked["test"].users, str(form): ranked["test"].ndcg.astype(np.float32)})
            np.savez_compressed(arrays, **of_users)
            records[form] = {
                **form._asdict(),
                **{name: found.as_dict() for name, found in ranked.items()},
                "users_per_second": round(speeds[form], 1),
                **about["of_a_point"],
            }
            write_json(file, {**about["of_all"], "said": said, "forms": list(records.values())})


def drawn(loaded, part, count: int | None):
    """A loader of some users of a part of the data, drawn at random but always the same; of all for None."""
    rows = part.dataset.inter_feat
    if count is None or count >= len(rows):
        return part
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), count, replace=False))
    return type(part)(loaded.config, part.dataset.copy(rows[chosen]), part._sampler, shuffle=False)


@contextmanager
def read_once(model, wanted: list[Form]) -> Iterator[None]:
    """A model that reads the histories of a batch once for all forms, and remembers what it found."""
    known, encode, retrieval = {}, model.encode_histories, model.retrieval
    needs = {key: max((form.value for form in wanted if form.kind == key), default=0.0) for key in SETTINGS}
    needs["text_weight"] = needs["text_weight"] or float(Form(ALONE) in wanted)

    def encode_once(interaction, scores=True, answer=False):
        key = interaction[model.USER_ID].cpu().numpy().tobytes(), interaction[model.ITEM_SEQ].cpu().numpy().tobytes()
        if key not in known:
            with values(retrieval, **needs):
                known[key] = encode(interaction)
        return known[key]

    model.encode_histories = encode_once
    try:
        yield
    finally:
        del model.encode_histories


@contextmanager
def values(retrieval, **settings: float) -> Iterator[None]:
    """A retrieval with other values of some settings."""
    before = {key: getattr(retrieval, key) for key in settings}
    for key, value in settings.items():
        setattr(retrieval, key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            setattr(retrieval, key, value)


def speed(loaded, form: Form, part) -> float:
    """Users a second that are ranked in some form: of one batch."""
    model, rows = loaded.model, next(iter(part))[0].to(loaded.config["device"])
    with ranking_by(model, form):
        model.full_sort_predict(rows[:8])  # warms up
        start = perf_counter()
        model.full_sort_predict(rows)
        return len(rows) / (perf_counter() - start)


def form_of(record: dict[str, Any]) -> Form:
    """The form that a record is about."""
    return Form(*(record[field] for field in Form._fields))


def rank(loaded, form: Form, part) -> Ranked:
    """Rank the targets of a part in some form."""
    from recbole_contrec.training.evaluation import RANKS

    with ranking_by(loaded.model, form):
        loaded.trainer.evaluate(part, load_best_model=False, save_ranks=True)
    with np.load(loaded.trainer.folder / RANKS) as found:
        return Ranked(found["user"], *gains(found["rank"], found["ties"]))


@contextmanager
def ranking_by(model, form: Form) -> Iterator[None]:
    """A model that ranks in some form."""
    alone = form.kind == ALONE  # then the model computes what the texts are worth as well
    own = {key: form.value if form.kind == key else 0.0 for key in SETTINGS}
    with values(model.retrieval, **{**own, **({"text_weight": 1.0} if alone else {})}):
        if alone:
            model.full_sort_predict = partial(text_scores, model)
        try:
            yield
        finally:
            vars(model).pop("full_sort_predict", None)


def text_scores(model, interaction):
    """Log-probability of every item's text [B, N], and nothing else: not even the repeat bias."""
    evidence = model.text_evidence(model.encode_histories(interaction))
    return evidence.log_probs[:, evidence.text_of]


def gains(ranks: np.ndarray, ties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NDCG@10 and HR@10 of every target [n], the mean over all orders of the items that score the same.

    Args:
        ranks: of the targets where they come first among their ties [n], 1 is best.
        ties: other items that score the same [n]. By the text alone, these are all that have the same text.
    """
    first, last = np.minimum(ranks - 1, TOP), np.minimum(ranks + ties, TOP)  # places up to 10 that the target may take
    discounted = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, TOP + 2)))])
    return (discounted[last] - discounted[first]) / (ties + 1), (last - first) / (ties + 1)


def _parse(arguments):
    options = parser(__doc__)
    options.add_argument(
        "--seeds", type=partial(number, int, 1, None), default=1, help="models to train, by seeds from --seed on (1)"
    )
    options.add_argument("--name", type=name_of_a_folder, help="of the row; the model's if not given")
    options.add_argument(
        "--users",
        type=partial(number, int, 1, None),
        help="of validation and of test, drawn at random; all if not given",
    )
    options.add_argument(
        "--text_weight",
        nargs="+",
        type=partial(number, float, 0, None),
        default=[0.0, 0.05, 0.1, 0.2],
        help="weights of an item's log-probability; 0 for the vectors alone",
    )
    options.add_argument(
        "--text_bonus",
        nargs="+",
        type=partial(number, float, 0, 1),
        default=[0.0, 0.05, 0.1],
        help="bonuses pi of items of the named category; 0 for the vectors alone",
    )
    given = parse(options, arguments)
    if given.checkpoint and given.seeds > 1:
        options.error("a checkpoint has one seed: leave out --seeds")
    return given


if __name__ == "__main__":
    sys.exit(main())
