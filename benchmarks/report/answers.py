"""
benchmarks.report.answers
#########################
From the records of :mod:`benchmarks.answers` to Markdown tables.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lib.asked import BEFORE_IT_CAME, NO_MATTER
from benchmarks.lib.runs import Result, load, read, read_arrays
from benchmarks.lib.significance import Comparison, compare, mean_over_seeds
from benchmarks.lib.trained import circumstances
from benchmarks.report.cells import four, head, line, same, spread
from benchmarks.report.rows import short_method

VECTORS, ALONE = "vectors alone", "text alone"
WITHOUT = "without words"  # the same model, trained without any
KINDS = ("text_weight", "text_bonus")  # settings whose value is chosen
PARTS = {"valid": "validation", "test": "test"}
METRICS = ("ndcg@10", "hit@10")
GUESSES = ("answers", "most popular", "last item's")  # of the next item's category


class Row(NamedTuple):
    """A model over its seeds.

    Attributes:
        name: of the row.
        records: what was measured, a record a seed.
        of_users: ``user`` [n], and NDCG@10 of the test by title of a form [n], a seed each.
        without: the runs of the same model and seeds without words; empty where one of them is missing.
    """

    name: str
    records: list[dict[str, Any]]
    of_users: list[dict[str, np.ndarray]]
    without: list[Result] = []

    @property
    def forms(self) -> list[tuple[str, float]]:
        """Kind and value of the forms that all seeds have: vectors alone first, every setting by value, the text alone
        last."""
        order = [VECTORS, *KINDS, ALONE]
        every = set.intersection(
            *({(form["kind"], form["value"]) for form in record["forms"]} for record in self.records)
        )
        return sorted(every, key=lambda form: (order.index(form[0]), form[1]))

    def of_form(self, form: tuple[str, float], value: Callable[[dict], float]) -> list[float]:
        """Something of a form, of every seed."""
        return [
            value(found)
            for record in self.records
            for found in record["forms"]
            if (found["kind"], found["value"]) == form
        ]

    def validation(self, form: tuple[str, float]) -> float:
        """Mean NDCG@10 on validation: what values are chosen by."""
        return mean(self.of_form(form, lambda found: found["valid"]["ndcg@10"]))

    def against_vectors(self, form: tuple[str, float]) -> Comparison:
        """A form against the vectors alone on the test, every user with the mean over the seeds."""
        return compare(
            *(np.mean([arrays[title(*each)] for arrays in self.of_users], axis=0) for each in (form, (VECTORS, 0.0)))
        )

    def against_without(self) -> Comparison:
        """The vectors alone against the model without words, likewise."""
        users = self.of_users[0]["user"]
        ours = np.mean([arrays[VECTORS] for arrays in self.of_users], axis=0)
        return compare(ours, mean_over_seeds([result.ranks for result in self.without], users))


def read_rows(folder: Path) -> list[Row]:
    """The rows of a folder, and beside them the runs without words where there are some that are otherwise alike.

    Raises:
        UserError: nothing was measured yet, or a record is damaged.
    """
    from recbole_contrec import UserError

    found = []
    for place in sorted(path for path in folder.glob("*") if any(path.glob("seed*.json"))):
        files = sorted(place.glob("seed*.json"))
        records = [read(path, "drawn_users") for path in files]
        arrays = [read_arrays(path.with_suffix(".npz"), ("user",)) for path in files]
        found.append(Row(place.name, records, arrays, _without(folder, records)))
    if not found:
        raise UserError(f"{folder} holds no record: nothing has been measured yet")
    return found


def _without(folder: Path, records: list[dict]) -> list[Result]:
    """Runs of the same model and seeds on all users, without words; none where one is missing.

    They hear similar texts in their scores where the measured model does, and only there, so that the two differ by the
    words alone: the rows of ``OUTPUT/DATASET-pretrained`` have such runs where ``OUTPUT/DATASET`` has others.
    """
    card, seeds = records[0]["card"], [record["card"]["seed"] for record in records]
    if any(record["drawn_users"] for record in records):
        return []
    shipped = load(folder.parent / card["dataset"]).get(card["model"], [])
    for results in (shipped, *load(folder.parent / f"{card['dataset']}-pretrained").values()):
        known = {result.content["card"]["seed"]: result for result in results}
        if all(
            record["card"]["seed"] in known and _but_for_words(record, known[record["card"]["seed"]].content)
            for record in records
        ):
            return [known[seed] for seed in seeds]
    return []


def _but_for_words(record: dict, run: dict) -> bool:
    """Whether a run is of the model of a record, without its words and otherwise alike."""
    ours, theirs = record["settings"], run["settings"]
    known = ours.keys() & theirs.keys() - _settings_of_words() - {*NO_MATTER, *BEFORE_IT_CAME}
    return (
        run["card"].get("model", record["card"]["model"]) == record["card"]["model"]
        and not theirs.get("answer_weight")
        and all(ours[key] == theirs[key] for key in known)
        and _hears_texts(record) == _hears_texts(run)
    )


def _hears_texts(content: dict) -> bool:
    """Whether similar texts are in the scores."""
    chosen = (content.get("chosen_on_validation") or {}).get("text_similarity")
    return bool(chosen["value"] if chosen else content["settings"].get("text_similarity"))


def _settings_of_words() -> set[str]:
    """The settings of texts in the prompt and of answers."""
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.groups import list_groups
    from recbole_contrec.settings.schema import read_settings

    return set(read_settings(list_groups(properties_folders())["text"]))


def report(rows: list[Row]) -> str:
    """The README of a folder."""
    dataset = rows[0].records[0]["card"]["dataset"]
    return f"# {dataset}: what the language model says, and what it is worth\n\n{tables(rows)}\n"


def tables(rows: Sequence[Row]) -> str:
    """Everything below the heading, row by row."""
    return "\n\n".join(part for row in rows for part in _of_row(row))


def _of_row(row: Row) -> list[str]:
    said = [record["said"] for record in row.records]
    return [
        _about(row),
        shares_table(said),
        _about_shares(said[0]),
        ranking_table(row),
        *(choice(row, kind) for kind in KINDS if any(form[0] == kind for form in row.forms)),
        "Differences are to the vectors alone, of the same model and users (every one with the mean over the seeds), "
        "with a 95 % "
        "bootstrap interval. By the text alone, items with the same text score the same: the mean over all orders of "
        "these.",
        examples_table(said[0]["test"]["examples"]),
    ]


def _about(row: Row) -> str:
    record = row.records[0]
    card, settings, method = record["card"], record["settings"], short_method(record)
    seeds = [each["card"]["seed"] for each in row.records]
    drawn = f", {record['drawn_users']:,} of them drawn at random" if record["drawn_users"] else ""
    measured = [part for each in row.records for part in (each["said"], *each["forms"])]
    return (
        f"**{row.name}**: {card['model']}{f' ({method})' if method else ''}, seed {same(seeds)}, "
        f'answer_weight={settings["answer_weight"]:g}, answer_template="{settings["answer_template"]}", '
        f"answers_per_window={settings['answers_per_window']}, prompt_text={settings['prompt_text']}{drawn}; "
        f"{circumstances(card, measured)}"
    )


def shares_table(said: list[dict[str, Any]]) -> str:
    """How often the right category is named, a line a part and a way to count; means over seeds."""
    lines = head(
        "part",
        "next items",
        "number",
        "answers that name a category",
        *(f"{what}: {guess}" for what in ("right", "overlap") for guess in GUESSES),
        "different answers",
        "answers/s",
    )
    for part, shown in PARTS.items():
        for group in ("all", "with a category"):
            found = [each[part][group] for each in said]
            right, overlap = (
                [
                    spread([each[guess][what] for each in found], bold=guess == GUESSES[0])
                    if guess == GUESSES[0]
                    else four(found[0][guess][what])
                    for guess in GUESSES
                ]
                for what in ("right", "overlap")
            )
            lines.append(
                line(
                    shown,
                    group,
                    f"{found[0]['targets']:,}",
                    four(mean(each["answers"]["named"] for each in found)),
                    *right,
                    *overlap,
                    same([each[part]["different_answers"] for each in said]),
                    f"{mean(each[part]['answers_per_second'] for each in said):,.0f}",
                )
            )
    return "\n".join(lines)


def _about_shares(said: dict[str, Any]) -> str:
    popular = said["test"]["most_popular"] or "there is none"
    return (
        "Right is a guess that is the whole category of the next item; overlap is the share of words (single genres) "
        "that the two have in common among all that either has. Beside the answers stand two guesses without a model: "
        f"the category of most training targets ({popular}), and that of the last item of the history."
    )


def ranking_table(row: Row) -> str:
    """Accuracy and speed, a line a form; the best on validation in bold."""
    lines = head("ranked by", "valid NDCG@10", "valid HR@10", "NDCG@10", "HR@10", "difference", "users/s")
    best = max(row.validation(form) for form in row.forms)
    if row.without:
        metrics = (
            spread([result.content[part][metric] for result in row.without])
            for part in ("best_valid_result", "test_result")
            for metric in METRICS
        )
        method = same([short_method(result.content) for result in row.without])
        shown = f"{WITHOUT} ({method})" if method else WITHOUT
        lines.append(line(shown, *metrics, _difference(row.against_without(), -1), ""))
    for form in row.forms:
        valid, test = (
            [
                spread(
                    row.of_form(form, lambda found, part=part, metric=metric: found[part][metric]),
                    bold=part == "valid" and metric == METRICS[0] and row.validation(form) == best,
                )
                for metric in METRICS
            ]
            for part in PARTS
        )
        against = "" if form[0] == VECTORS else _difference(row.against_vectors(form))
        lines.append(
            line(
                title(*form),
                *valid,
                *test,
                against,
                f"{mean(row.of_form(form, lambda found: found['users_per_second'])):,.0f}",
            )
        )
    return "\n".join(lines)


def choice(row: Row, kind: str) -> str:
    """The value of a setting that is best on validation, and what it gives on test."""
    tried = [form for form in row.forms if form[0] in (VECTORS, kind)]
    chosen, vectors = max(tried, key=row.validation), (VECTORS, 0.0)
    among = f"{kind} chosen on validation among {', '.join(f'{value:g}' for _, value in tried)}"
    if chosen == vectors:
        return f"{among}: 0, the vectors alone."
    scores = (
        f"{shown} {four(ours)} against {four(theirs)}"
        for shown, (ours, theirs) in zip(
            ("NDCG@10", "HR@10"),
            (
                [
                    mean(row.of_form(form, lambda found, metric=metric: found["test"][metric]))
                    for form in (chosen, vectors)
                ]
                for metric in METRICS
            ),
        )
    )
    comparison = row.against_vectors(chosen)
    relative = comparison.difference / mean(row.of_form(vectors, lambda found: found["test"]["ndcg@10"]))
    return (
        f"{among}: **{chosen[1]:g}**. On test {' and '.join(scores)} of the vectors alone, {_difference(comparison)} "
        f"in NDCG@10 ({relative:+.1%})."
    )


def examples_table(examples: list[dict]) -> str:
    """What was said about the first users of the test, by internal number."""
    lines = head("user", "last items", "the model says", "next item", "its category")
    for example in examples:
        shown = (
            example["user"],
            "; ".join(example["history"]),
            *(example[key] for key in ("answer", "next", "category")),
        )
        lines.append(line(*(" ".join(text.split()).replace("|", "\\|") for text in shown)))
    return "\n".join(lines)


def title(kind: str, value: float) -> str:
    """What a form is called."""
    return f"{kind} {value:g}" if kind in KINDS else kind


def _difference(found: Comparison, sign: int = 1) -> str:
    values = found.difference, *sorted((found.low, found.high), key=lambda value: sign * value)
    difference, low, high = (f"{sign * value:+.4f}".replace("0.", ".", 1) for value in values)
    return f"{difference} ({low} to {high})"
