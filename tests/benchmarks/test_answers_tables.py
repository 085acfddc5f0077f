"""The tables of what answers are worth, from made-up records."""

import json

import numpy as np
import pytest

from benchmarks.lib.runs import Result
from benchmarks.report import answers as answers_report
from benchmarks.report import marked
from benchmarks.report.answers import ALONE, VECTORS


def record(kind, value, valid, test, lost=0.0):
    part = {"hit@10": 0.5}
    return {
        "kind": kind,
        "value": value,
        "valid": {"ndcg@10": valid - lost, **part},
        "test": {"ndcg@10": test - lost, **part},
        "users_per_second": 1234.5,
        "commit": "abc",
        "device": "cpu, 1 threads",
    }


def seed_of(number, lost=0.0):
    """A record of which validation and test would choose differently, and NDCG@10 of three users."""
    share = {"named": 0.9, "right": 0.5 - lost, "overlap": 0.7}
    group = {
        "targets": 1234,
        "answers": share,
        "most popular": {**share, "right": 0.25},
        "last item's": {**share, "right": 0.5},
    }
    example = {"user": "u1", "history": ["A|B", "C\nD"], "answer": "odd kind", "next": "E", "category": ""}
    part = {
        "answers_per_second": 99.6,
        "different_answers": 7,
        "most_popular": "odd kind",
        "all": group,
        "with a category": {**group, "targets": 1200},
        "examples": [example],
    }
    card = {
        "dataset": "tiny",
        "model": "ContRec",
        "seed": number,
        "users": 1234,
        "items": 60,
        "ranking": {"test": "full"},
        "seen_items_masked": False,
    }
    settings = {"answer_weight": 0.1, "answer_template": "{category}", "answers_per_window": 16, "prompt_text": "bag"}
    forms = [
        record(ALONE, 0.0, 0.01, 0.02, lost / 10),
        record("text_weight", 0.2, 0.11, 0.15, lost),
        record("text_weight", 0.1, 0.12, 0.13, lost),
        record("text_bonus", 0.1, 0.1, 0.3, lost),
        record(VECTORS, 0.0, 0.1, 0.1, lost),
    ]
    found = {
        "card": card,
        "settings": settings,
        "weights": "0",
        "drawn_users": None,
        "forms": forms,
        "said": {"valid": part, "test": part, "commit": "def", "device": "cpu, 1 threads"},
    }
    of_users = {
        answers_report.title(form["kind"], form["value"]): form["test"]["ndcg@10"] + np.array([0, -0.01, 0.01])
        for form in forms
    }
    return found, {"user": np.array(["a", "b", "c"]), **of_users}


@pytest.fixture
def row():
    return answers_report.Row("ContRec", *map(list, zip(seed_of(1))))


def test_values_are_chosen_on_validation(row):
    assert answers_report.choice(row, "text_weight") == (
        "text_weight chosen on validation among 0, 0.1, 0.2: **0.1**. On test NDCG@10 .1300 against .1000 and HR@10 "
        ".5000 "
        "against .5000 of the vectors alone, +.0300 (+.0300 to +.0300) in NDCG@10 (+30.0%)."
    )
    assert answers_report.choice(row, "text_bonus").endswith("among 0, 0.1: 0, the vectors alone.")


def test_tables_of_a_record(row):
    assert answers_report.shares_table([row.records[0]["said"]]).splitlines()[2] == (
        "| validation | all | 1,234 | .9000 | **.5000** | .2500 | .5000 | **.7000** | .7000 | .7000 | 7 | 100 |"
    )
    assert answers_report.ranking_table(row).splitlines()[2:] == [
        "| vectors alone | .1000 | .5000 | .1000 | .5000 |  | 1,234 |",
        "| text_weight 0.1 | **.1200** | .5000 | .1300 | .5000 | +.0300 (+.0300 to +.0300) | 1,234 |",
        "| text_weight 0.2 | .1100 | .5000 | .1500 | .5000 | +.0500 (+.0500 to +.0500) | 1,234 |",
        "| text_bonus 0.1 | .1000 | .5000 | .3000 | .5000 | +.2000 (+.2000 to +.2000) | 1,234 |",
        "| text alone | .0100 | .5000 | .0200 | .5000 | -.0800 (-.0800 to -.0800) | 1,234 |",
    ]
    assert "| u1 | A\\|B; C D | odd kind | E |  |" in answers_report.report([row])
    assert "commit abc, def." in answers_report.report([row])


def test_seeds_are_averaged_and_compared_with_the_model_without_words(row):
    def result(seed):
        ranks = {"user": np.array(["c", "a", "b"]), "rank": np.array([1, 2, 11]), "ties": np.zeros(3, dtype=int)}
        return Result(
            "ContRec",
            {
                "card": {},
                "best_valid_result": {"ndcg@10": 0.2 + seed / 100, "hit@10": 0.3},
                "test_result": {"ndcg@10": 0.4, "hit@10": 0.6},
            },
            ranks,
        )

    both = row._replace(
        records=[row.records[0], seed_of(2, 0.02)[0]],
        of_users=[row.of_users[0], seed_of(2, 0.02)[1]],
        without=[result(1), result(2)],
    )
    lines = answers_report.ranking_table(both).splitlines()
    assert lines[3].startswith("| vectors alone | .0900 ± .0141 | .5000 ± .0000 | .0900 ± .0141 |")
    assert lines[2].startswith("| without words | .2150 ± .0071 | .3000 ± .0000 | .4000 ± .0000 | .6000 ± .0000 | ")
    gains = np.mean([1 / np.log2(3), 0, 1])  # of users a, b and c, where the vectors have .09, .08 and .10
    low, high = 0 - 0.08, 1 - 0.10
    assert f"| {gains - 0.09:+.4f} ({low:+.4f} to {high:+.4f}) |".replace("0.", ".") in lines[2]
    assert "**.4900** ± .0141 | .2500 | .5000" in answers_report.shares_table([each["said"] for each in both.records])


def test_runs_without_words_are_found_beside_the_record(row, tmp_path):
    place = tmp_path / "tiny" / "ContRec"
    place.mkdir(parents=True)
    (place / "seed1.json").write_text(
        json.dumps({"card": {"seed": 1, "dataset": "tiny"}, "settings": {"answer_weight": 0.0}})
    )
    written(tmp_path, row)
    assert [run.name for run in answers_report.read_rows(tmp_path / "tiny-answers")[0].without] == ["ContRec"]
    (place / "seed1.json").write_text(
        json.dumps({"card": {"seed": 1, "dataset": "tiny"}, "settings": {"answer_weight": 0.1}})
    )
    assert answers_report.read_rows(tmp_path / "tiny-answers")[0].without == []


@pytest.mark.parametrize("weight, expected", [(0.0, "ContRec-tfidf"), (2.0, "ContRec")])
def test_the_run_without_words_hears_similar_texts_where_the_model_does(row, tmp_path, weight, expected):
    """And is otherwise alike: neither the longer run nor another model will do."""

    def settings(**own):
        return {"answer_weight": 0.0, "prompt_text": "none", "epochs": 9, "text_similarity": 0.0, **own}

    chosen = {"chosen_on_validation": {"text_similarity": {"value": 8.0}}}
    for folder, name, model, content in (
        ("tiny", "ContRec", "ContRec", {"settings": settings(text_similarity=None), **chosen}),
        ("tiny-pretrained", "ContRec-long", "ContRec", {"settings": settings(epochs=22)}),
        ("tiny-pretrained", "ContRec-other", "DeftRec", {"settings": settings()}),
        ("tiny-pretrained", "ContRec-tfidf", "ContRec", {"settings": settings()}),
    ):
        place = tmp_path / folder / name
        place.mkdir(parents=True)
        card = {"seed": 1, "dataset": "tiny", "model": model}
        (place / "seed1.json").write_text(json.dumps({"card": card, **content}))
    row.records[0]["settings"].update(epochs=9, text_similarity=weight)
    written(tmp_path, row)
    assert [run.name for run in answers_report.read_rows(tmp_path / "tiny-answers")[0].without] == [expected]


def written(folder, row):
    place = folder / "tiny-answers" / "ContRec"
    place.mkdir(parents=True)
    (place / "seed1.json").write_text(json.dumps(row.records[0]))
    np.savez(place / "seed1.npz", **row.of_users[0])


def test_the_readme_quotes_a_record(row, tmp_path):
    written(tmp_path, row)
    text = marked.with_tables("<!-- answers: tiny-answers -->\n<!-- end -->", tmp_path)
    assert answers_report.tables([row]) in text and marked.with_tables(text, tmp_path) == text
