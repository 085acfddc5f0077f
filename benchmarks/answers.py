"""
benchmarks.answers
##################
How often a language model's answers name the right category, and what its words are worth in the ranking.

    python benchmarks/answers.py --model=ContRec --dataset=ml-100k --answer_weight=0.1 --prompt_text=bag
    python benchmarks/answers.py --checkpoint=saved/RUN --text_weight 0 0.05 0.1 0.2 --text_bonus 0 0.05 0.1

Without ``--checkpoint`` a model is trained first, with further ``--key=value`` settings, and kept in
``OUTPUT/DATASET-answers/saved``; with it such settings change how the model is evaluated. Its answers are counted, and it
ranks by its vectors alone, with every bonus, with every weight, and by the likelihood of the texts alone, on validation and
on test. ``OUTPUT/DATASET-answers/answers.json`` is written after each of these forms, and what it holds is not measured
again, so the command can be stopped and given again. The tables are written beside it.
"""

import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import numpy as np
from tqdm import tqdm

from answers_report import ALONE, VECTORS, report
from answers_said import measure_answers
from significance import compare
from trained import describe, earlier, measure_and_report, number, parse, parser, trained_model

RECORD = "answers.json"
SETTINGS = ("text_bonus", "text_weight")  # every form has its own
TOP = 10


class Form(NamedTuple):
    """A way to rank: by the vectors alone, by the text alone, or by both with a value of a setting."""

    kind: str
    value: float = 0.0

    def __str__(self):
        return f"{self.kind} {self.value:g}" if self.kind in SETTINGS else self.kind


class Ranked(NamedTuple):
    """What a form gives every target of a part, arrays [n], and its speed."""

    ndcg: np.ndarray
    hits: np.ndarray
    users_per_second: float

    def as_dict(self) -> dict[str, float]:
        """Means, JSON-like."""
        return {f"ndcg@{TOP}": float(self.ndcg.mean()), f"hit@{TOP}": float(self.hits.mean()),
                "users_per_second": round(self.users_per_second, 1)}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then write the tables; 0, or 1 if that was not possible."""
    return measure_and_report(_parse(arguments), "answers", RECORD, measure_all, report)


def measure_all(given) -> Path:
    """Train where no checkpoint is given, then measure what is not in the record yet.

    Returns:
        Path: the folder of the record.

    Raises:
        UserError: no such checkpoint, a model that says nothing, or a record of another model.
    """
    from recbole_contrec import Config

    if given.checkpoint is None:  # found before the training, not after it
        refuse(Config(given.model, given.dataset, arguments=given.settings))
    with trained_model(given, "answers") as (loaded, folder):
        refuse(loaded.config)
        measure_missing(loaded, forms(given.text_bonus, given.text_weight), folder)
    return folder


def refuse(config) -> None:
    """Stop where there is nothing to measure.

    Raises:
        UserError: a model that has not learned to answer, or a ranking of less than the whole catalogue.
    """
    from recbole_contrec import UserError

    if not config["answer_weight"]:  # other models do not have the setting
        raise UserError(f"{config['model']} has not learned to answer: train one that does with answer_weight above 0, "
                        "for instance --model=ContRec --answer_weight=0.1")
    if set(config["eval_args"]["mode"].values()) != {"full"}:
        raise UserError("the whole catalogue is ranked here: leave eval_args.mode at full")


def forms(bonuses: list[float], weights: list[float]) -> list[Form]:
    """All ways to rank, each once; nothing added is the vectors alone."""
    found = [Form(kind, value) for kind, values in zip(SETTINGS, (bonuses, weights)) for value in values if value]
    return list(dict.fromkeys([Form(VECTORS), *found, Form(ALONE)]))


def measure_missing(loaded, wanted: list[Form], folder: Path) -> None:
    """Count the answers and rank in the forms that the record lacks; the record is written after each.

    Raises:
        UserError: the folder holds numbers of another model, or of other settings.
    """
    from recbole_contrec.training.results import write_json

    about = describe(loaded, SETTINGS)
    content = earlier(folder / RECORD, about)
    records = {form_of(record): record for record in content.get("forms", ())}
    if not (missing := [form for form in wanted if form not in records]):
        return
    parts = {"valid": loaded.data.valid, "test": loaded.data.test}
    said = content.get("said") or {**{name: measure_answers(loaded, part) for name, part in parts.items()},
                                   **about["of_a_point"]}
    loaded.trainer.eval_collector.data_collect(loaded.data.train)
    loaded.trainer.folder = Path("ranks").absolute()  # not among the runs that are kept
    vectors = None
    # Every form is compared with the vectors alone, target by target, so these are ranked again for later forms.
    with tqdm(dict.fromkeys([Form(VECTORS), *missing]), unit="form", dynamic_ncols=True) as bar:
        for form in bar:
            bar.set_description(str(form))
            ranked = {name: rank(loaded, form, part) for name, part in parts.items()}
            vectors = vectors or ranked
            records[form] = {**form._asdict(), **{name: found.as_dict() for name, found in ranked.items()},
                             "test_difference": compare(ranked["test"].ndcg, vectors["test"].ndcg)._asdict(),
                             **about["of_a_point"]}
            write_json(folder / RECORD, {**about["of_all"], "said": said, "forms": list(records.values())})


def form_of(record: dict[str, Any]) -> Form:
    """The form that a record is about."""
    return Form(*(record[field] for field in Form._fields))


def rank(loaded, form: Form, part) -> Ranked:
    """Rank the targets of a part in some form."""
    from recbole_contrec.training.evaluation import RANKS

    with ranking_by(loaded.model, form):
        loaded.trainer.evaluate(part, load_best_model=False, save_ranks=True)
    with np.load(loaded.trainer.folder / RANKS) as found:
        return Ranked(*gains(found["rank"], found["ties"]), loaded.trainer.evaluation_speed)


@contextmanager
def ranking_by(model, form: Form) -> Iterator[None]:
    """A model that ranks in some form."""
    retrieval = model.retrieval
    before = retrieval.text_bonus, retrieval.text_weight
    retrieval.text_bonus, retrieval.text_weight = (form.value if form.kind == kind else 0.0 for kind in SETTINGS)
    if form.kind == ALONE:
        retrieval.text_weight = 1.0  # so that the model computes what the texts are worth
        model.full_sort_predict = partial(text_scores, model)
    try:
        yield
    finally:
        retrieval.text_bonus, retrieval.text_weight = before
        vars(model).pop("full_sort_predict", None)


def text_scores(model, interaction):
    """Log-probability of every item's text [B, N], and nothing else: not even the repeat bias."""
    evidence = model._text_evidence(model.encode_histories(interaction))
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
    options.add_argument("--text_weight", nargs="+", type=partial(number, float, 0, None), default=[0.0, 0.05, 0.1, 0.2],
                         help="weights of an item's log-probability; 0 for the vectors alone")
    options.add_argument("--text_bonus", nargs="+", type=partial(number, float, 0, 1), default=[0.0, 0.05, 0.1],
                         help="bonuses pi of items of the named category; 0 for the vectors alone")
    return parse(options, arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, not an installed version
    sys.exit(main())
