"""What answers are worth: planted ones are counted, forms of ranking are what they say, and a small record end to
end."""

import json
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch

from benchmarks import answers
from benchmarks.answers import Form
from benchmarks.lib import generated_answers
from benchmarks.report import answers as answers_report
from benchmarks.report.answers import ALONE, VECTORS
from recbole_contrec.data.windows import Histories
from tests.helpers.options import TINY_CONTREC, changed

TALKING = ("--answer_weight=0.1", "--vocabulary_size=300")


def sequences(tiny):
    """Items of every user in order of time, by name, from the file."""
    found = {}
    for row in (tiny / "tiny" / "tiny.inter").read_text().splitlines()[1:]:
        user, item, *_ = row.split("\t")
        found.setdefault(user, []).append(int(item[1:]))
    return found


def category(item):
    """Of the tiny data, where every tenth item has lost its own."""
    return "" if item % 10 == 0 else f"{'odd' if item % 2 else 'even'} kind"


@pytest.fixture
def talking(tiny, staged):
    """A model that can answer, over items of which every tenth has no category."""
    path = tiny / "tiny" / "tiny.item"
    names, *rows = path.read_text().splitlines()
    rows = [row.rpartition("\t")[0] + "\t" + category(int(row.split("\t")[0][1:])) for row in rows]
    path.write_text("\n".join([names, *rows]) + "\n")
    loaded = staged("ContRec", *TALKING)
    loaded.model.eval()
    return loaded


# what is said


def test_planted_answers_are_counted(talking, tiny, monkeypatch):
    """By the user's number: right, the other one, nothing, right in a sentence."""
    dataset, sequence_of = talking.data.dataset, sequences(tiny)
    user_of = {number: str(dataset.id2token("user_id", number)) for number in range(1, dataset.user_num)}

    def say(number):
        own = category(sequence_of[user_of[number]][-1]) or "odd kind"
        return [own, "even kind" if own == "odd kind" else "odd kind", "oddly kind", f"I say: {own.upper()}!"][
            number % 4
        ]

    monkeypatch.setattr(talking.model, "answers", lambda rows: [say(number) for number in rows["user_id"].tolist()])
    found = generated_answers.measure_answers(talking, talking.data.test)
    true = {number: category(sequence_of[user][-1]) for number, user in user_of.items()}
    assert "" in true.values()
    known = [number for number in true if true[number]]
    right, other = (sum(number % 4 in rest for number in known) for rest in ((0, 3), (1,)))
    named = sum(number % 4 != 2 for number in true)
    assert found["all"] == {
        **found["all"],
        "targets": 40,
        "answers": pytest.approx({"named": named / 40, "right": right / 40, "overlap": (right + other / 3) / 40}),
    }
    few = found["with a category"]
    assert few["targets"] == len(known) < 40
    assert few["answers"]["right"] == pytest.approx(right / len(known)) and found["different_answers"] == len(
        {say(number) for number in true}
    )

    counts = Counter(category(item) for items in sequence_of.values() for item in items[1:-2])
    del counts[""]
    popular = counts.most_common(1)[0][0]
    assert found["most_popular"] == popular
    assert few["most popular"]["right"] == pytest.approx(list(true.values()).count(popular) / len(known))
    again = sum(true[number] == category(sequence_of[user_of[number]][-2]) for number in known)
    assert few["last item's"]["right"] == pytest.approx(again / len(known))

    first = sequence_of[user_of[1]]
    assert found["examples"][0] == {
        "user": user_of[1],
        "history": [f"Title of {item}" for item in first[-4:-1]],
        "answer": say(1),
        "next": f"Title of {first[-1]}",
        "category": category(first[-1]),
    }
    assert [example["user"] for example in found["examples"]] == [user_of[number] for number in range(1, 6)]


def test_the_first_item_of_a_history_is_no_target():
    histories = Histories(np.array([1, 2, 1, 3, 1, 3]), np.array([0, 2, 4, 6]), np.array([1, 2, 3]))
    assert generated_answers.popular_category(histories, np.array([0, 1, 2, 3])) == 3
    assert generated_answers.popular_category(histories, np.array([0, 1, 0, 0])) == 0


def test_genres_keep_their_hyphens_and_overlap_by_words():
    category_of = np.array([0, 1, 2, 0, 2])
    words = generated_answers.genres(["", "Sci-Fi|Children's", "Comedy, Sci-Fi", "", "comedy sci-fi"], category_of)
    assert words == [set(), {"sci-fi", "children's"}, {"comedy", "sci-fi"}]
    found = generated_answers.shares(np.array([1, 2, 0, 1]), np.array([2, 2, 1, 0]), words)
    assert found == {"named": 0.75, "right": 0.25, "overlap": pytest.approx((1 / 3 + 1) / 4)}
    assert generated_answers.shares(category_of[:0], category_of[:0], words) == {"named": 0, "right": 0, "overlap": 0}


def test_without_titles_items_are_called_as_in_the_data(talking):
    talking.data.dataset.item_texts.pop("title")
    names = generated_answers.names_of(talking)
    tokens = talking.data.dataset.field2id_token["item_id"]
    assert names.titles[1:] == tokens[1:].tolist()
    assert names.categories[1:] == [category(int(token[1:])) for token in tokens[1:]]


# ranking


def test_gains_are_means_over_the_orders_of_ties():
    for rank, ties in ((1, 0), (10, 0), (11, 0), (2, 4), (9, 4), (300, 50)):
        places = [rank + order.index(0) for order in permutations(range(ties + 1))] if ties < 5 else [rank]
        ndcg, hits = answers.gains(np.array([rank]), np.array([ties]))
        assert ndcg[0] == pytest.approx(np.mean([1 / np.log2(place + 1) if place <= 10 else 0 for place in places]))
        assert hits[0] == pytest.approx(np.mean([place <= 10 for place in places]))


def test_nothing_added_is_the_vectors_alone():
    assert answers.forms([0.0, 0.1, 0.1], [0.2, 0.0]) == [
        Form(VECTORS),
        Form("text_bonus", 0.1),
        Form("text_weight", 0.2),
        Form(ALONE),
    ]
    assert answers.forms([0.3], [0.0]) == [Form(VECTORS), Form("text_bonus", 0.3)], "no likelihoods without weights"


@torch.no_grad()
def test_every_form_reaches_the_ranking_and_is_taken_back(talking, monkeypatch):
    model, rows = talking.model, next(iter(talking.data.test))[0]
    monkeypatch.setattr(model.language.vocabulary, "decode", lambda numbers: ["odd kind"] * len(numbers))
    model.retrieval.text_weight = 0.3
    own, scores = model.full_sort_predict(rows), {}
    for form in answers.forms([0.1], [0.2]):
        with answers.ranking_by(model, form):
            scores[form.kind] = model.full_sort_predict(rows)
    torch.testing.assert_close(model.full_sort_predict(rows), own)
    said = model.language.answers
    log_probs = model.encode_histories(rows).log_probs[:, said.text_of]
    torch.testing.assert_close(scores[ALONE], log_probs)
    torch.testing.assert_close(scores["text_weight"], scores[VECTORS] + 0.2 * log_probs)
    torch.testing.assert_close(own, scores[VECTORS] + 0.3 * log_probs)
    categories = model.language.categories
    changed_items = ((scores["text_bonus"] - scores[VECTORS]).abs() > 1e-6).any(0)
    assert torch.equal(changed_items, categories.category_of == categories.number["odd kind"])


@torch.no_grad()
def test_histories_are_read_once_for_all_forms(talking, monkeypatch):
    model, batches = talking.model, [batch[0] for batch in talking.data.test]
    wanted = answers.forms([0.1], [0.2])
    expected = []
    for form in wanted:
        with answers.ranking_by(model, form):
            expected.append([model.full_sort_predict(rows) for rows in batches])
    read = model.answering.encode
    reads = []
    monkeypatch.setattr(model.answering, "encode", lambda *rows, **needs: reads.append(needs) or read(*rows, **needs))
    with answers.read_once(model, wanted):
        for form, scores in zip(wanted, expected):
            with answers.ranking_by(model, form):
                for rows, found in zip(batches, scores):
                    torch.testing.assert_close(model.full_sort_predict(rows), found)
    assert reads == [{"answer": True, "log_probs": True}] * len(batches)
    assert model.retrieval.text_bonus == model.retrieval.text_weight == 0
    model.full_sort_predict(batches[0])
    assert reads[-1] == {"answer": False, "log_probs": False}, "and as ever afterwards"


def test_some_users_are_drawn_and_ranked_as_among_all(talking, monkeypatch, workplace):
    data, trainer = talking.data, talking.trainer
    trainer.eval_collector.data_collect(data.train)
    trainer.folder = workplace / "ranks"
    whole = answers.rank(talking, Form(VECTORS), data.test)
    some = answers.drawn(talking, data.test, 7)
    found = answers.rank(talking, Form(VECTORS), some)
    again = answers.rank(talking, Form(VECTORS), answers.drawn(talking, data.test, 7))
    assert len(found.users) == len(set(found.users)) == 7 and found.users.tolist() == again.users.tolist()
    of_user = dict(zip(whole.users.tolist(), whole.ndcg.tolist()))
    assert [of_user[user] for user in found.users.tolist()] == pytest.approx(found.ndcg.tolist())
    assert answers.drawn(talking, data.test, None) is answers.drawn(talking, data.test, 999) is data.test


# end to end


def test_from_training_to_the_tables(tiny, workplace, monkeypatch, capsys):
    def ask(*arguments):
        return answers.main(["--output=results", *arguments])

    training = ["--dataset=tiny", f"--data_path={tiny}", *changed(TINY_CONTREC, ["--epochs=1"]), *TALKING]
    values = ["--text_weight", "0", "0.1", "--text_bonus", "0.2"]
    assert ask(*training, *values, "--seeds=2", "--name=genres") == 0
    folder = workplace / "results" / "tiny-answers"
    records = [json.loads((folder / "genres" / f"seed{seed}.json").read_text()) for seed in (2020, 2021)]
    stored = records[0]
    assert [answers.form_of(each) for each in stored["forms"]] == answers.forms([0.2], [0.1])
    assert records[1]["card"]["seed"] == 2021 and records[1]["weights"] != stored["weights"]
    trained = folder / "saved" / "genres-seed2020"
    result = json.loads((trained / "result.json").read_text())
    for part, metrics in (("valid", "best_valid_result"), ("test", "test_result")):
        for metric in ("ndcg@10", "hit@10"):
            assert stored["forms"][0][part][metric] == pytest.approx(result[metrics][metric], abs=1e-4)
    assert str(workplace) not in json.dumps(stored) and stored["card"]["dataset"] == "tiny"
    assert not {"text_weight", "text_bonus", "data_path"} & stored["settings"].keys()
    rows = answers_report.read_rows(folder)
    assert (folder / "README.md").read_text() == answers_report.report(rows) and len(rows[0].records) == 2
    of_users = np.load(folder / "genres" / "seed2020.npz")
    for each in stored["forms"]:
        wanted = of_users[answers_report.title(each["kind"], each["value"])]
        assert len(wanted) == 40 and wanted.mean() == pytest.approx(each["test"]["ndcg@10"], abs=1e-6)
    kept = {trained.name, "genres-seed2021", "stages"}
    assert len({each["test"]["ndcg@10"] for each in stored["forms"]}) > 1
    assert {path.name for path in trained.parent.iterdir()} == kept

    # again from the checkpoint: answers are counted once, and so is every form
    ranked, rank = [], answers.rank
    monkeypatch.setattr(answers, "measure_answers", lambda *_: pytest.fail("answers are counted once"))
    monkeypatch.setattr(answers, "rank", lambda loaded, form, part: ranked.append(form) or rank(loaded, form, part))
    given = [f"--checkpoint={trained}", "--name=genres", "--text_weight", "0.1", "--text_bonus"]
    assert ask(*given, "0.2") == 0 and not ranked
    assert ask(*given, "0.3") == 0 and ranked == [Form("text_bonus", 0.3)] * 2
    again = json.loads((folder / "genres" / "seed2020.json").read_text())
    assert [answers.form_of(each) for each in again["forms"]] == [*answers.forms([0.2], [0.1]), Form("text_bonus", 0.3)]
    assert "text_bonus 0.3" in np.load(folder / "genres" / "seed2020.npz")
    assert "text_bonus 0.3" not in (folder / "README.md").read_text(), "a form that one seed lacks is not averaged"
    assert {path.name for path in trained.parent.iterdir()} == kept

    # numbers of other settings or users are never mixed in, and tables need no model
    assert ask(*given, "0.3", "--mask_seen=True") == 2
    assert "holds points of other mask_seen" in capsys.readouterr().err
    assert ask(*given, "0.3", "--users=9") == 2
    assert "holds numbers of all users, not 9" in capsys.readouterr().err
    assert ask("--tables-only", "--dataset=tiny") == 0 and ask("--tables-only", "--dataset=other") == 2


@pytest.mark.parametrize("model", ["Pop", "ContRec"])
def test_a_model_that_says_nothing_is_refused(run_tiny, model, capsys):
    checkpoint = run_tiny(model, "--epochs=1")["checkpoint"]
    assert answers.main([f"--checkpoint={checkpoint}", "--output=results"]) == 2
    assert "train one that does with answer_weight above 0" in capsys.readouterr().err


def test_what_cannot_be_measured_is_found_before_the_training(tiny, workplace, capsys):
    arguments = ["--dataset=tiny", f"--data_path={tiny}", "--output=results"]
    assert answers.main(arguments) == 2
    assert "train one that does with answer_weight above 0" in capsys.readouterr().err
    assert answers.main([*arguments, "--answer_weight=0.1", "--eval_args={'mode': 'uni20'}"]) == 2
    assert "leave eval_args.mode at full" in capsys.readouterr().err
    assert not (workplace / "results").exists()


@pytest.mark.parametrize(
    "argument, message", [("--text_bonus=1.5", "1.5 is not from 0 to 1"), ("--text_weight=-1", "-1 is not at least 0")]
)
def test_values_that_make_no_sense_are_refused(argument, message, capsys):
    with pytest.raises(SystemExit):
        answers.main(["--dataset=tiny", argument])
    assert message in capsys.readouterr().err
