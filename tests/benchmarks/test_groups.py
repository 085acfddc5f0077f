"""Accuracy by group of targets."""

import json

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.lib import significance
from benchmarks.report import groups, page, tables
from benchmarks.report.rows import rows
from recbole_contrec.errors import UserError
from tests.helpers.results import write_result

COLUMNS = {
    "item": np.array(list("uvwxyz")),
    "history": np.array([1, 2, 10, 11, 50, 60]),
    "popularity": np.array([9, 9, 3, 1, 0, 0]),
    "above": np.array([0.0, 0.0, 0.3, 0.9, 1.0, 1.0]),
    "seen": np.array([True, False, False, False, False, True]),
}
BEYOND = {
    "itemcoverage": 0.25,
    "giniindex": 0.5,
    "averagepopularity": 12.3456,
    "tailpercentage": 0.125,
    "novelty": 7.891,
    "diversity": 0.75,
}


def write(folder, name, seed, ranks, columns=True, **options):
    write_result(folder, name, seed, ranks, **options)
    path = folder / name / f"seed{seed}.npz"
    if columns:
        np.savez(path, **np.load(path), **COLUMNS)


@pytest.fixture
def folder(tmp_path):
    for seed in (1, 2):
        write(tmp_path, "ContRec", seed, [1, 1, 2, 1, 30, 1])
        write(tmp_path, "SASRec", seed, [9, 2, 20, 2, 5, 1], model="SASRec", score=0.05)
    return tmp_path


def test_groups_are_terciles_and_shares_of_interactions():
    found = {group.short: group.rows.nonzero()[0].tolist() for group in groups.split(COLUMNS)}
    assert found == {
        "short": [0, 1],
        "middle": [2, 3],
        "long": [4, 5],
        "head": [0, 1],
        "tail": [2, 3],
        "cold": [4, 5],
        "seen": [0, 5],
        "new": [1, 2, 3, 4],
    }


def test_accuracy_of_a_group_is_that_of_its_targets(folder):
    table, found = groups.of_groups(rows(folder))
    assert [row.name for row in table] == ["ContRec", "SASRec"]
    cold = next(group for group in found if group.short == "cold")
    assert cold.users == 2 and cold.hit == [0.5, 1.0]
    assert cold.ndcg == pytest.approx([0.5, (1 + significance.ndcg(np.array([5]), 0)[0]) / 2])
    assert cold.against == [None, None]  # two users are too few
    text = groups.groups_table(rows(folder))
    assert "| model | short histories (up to" in text and "cold targets, 2 users" in text and "| - |" in text


def test_an_interval_is_that_of_the_users_of_the_group(folder, monkeypatch):
    monkeypatch.setattr(groups, "FEWEST", 2)
    found = next(group for group in groups.of_groups(rows(folder))[1] if group.short == "new")
    ours, theirs = (significance.ndcg(np.array(ranks), 0) for ranks in ([1, 2, 1, 30], [2, 20, 2, 5]))
    assert found.against == [significance.compare(ours, theirs), None]


def test_several_targets_of_a_user_count_as_their_mean(tmp_path):
    for name, model, ranks in (("ContRec", "ContRec", [1, 50, 1, 50, 1, 1]), ("SASRec", "SASRec", [50] * 6)):
        write(tmp_path, name, 1, ranks, model=model)
        path = tmp_path / name / "seed1.npz"
        np.savez(path, **{**np.load(path), "user": np.array(list("aabbcc"))})
    found = groups.of_groups(rows(tmp_path))[1]
    middle = next(group for group in found if group.short == "middle")
    assert middle.users == 1 and middle.hit[0] == 0.5


def test_results_of_earlier_versions_say_what_they_lack(tmp_path):
    write(tmp_path, "ContRec", 1, [1] * 6, columns=False)
    assert groups.groups_table(rows(tmp_path)) == groups.LACKING and groups.LACKING in page.compare_page(rows(tmp_path))
    write(tmp_path, "SASRec", 1, [1] * 6, model="SASRec")
    text = page.compare_page(rows(tmp_path))
    assert "Not here: ContRec." in text  # one of them has what the other one lacks


@pytest.mark.parametrize("change", ["none", "users", "twice"])
def test_what_is_lacking_comes_from_the_data_where_they_are_the_same(tiny, tmp_path, change):
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.settings.config import Config

    data = load_data(Config("SASRec", "tiny", arguments=[f"--data_path={tiny}"]))
    users = data.dataset.user_num - 1
    card = {"users": users + (change == "users"), "items": data.dataset.item_num - 1}
    write(tmp_path, "SASRec", 1, [1] * 6, columns=False, model="SASRec", **card)
    path = tmp_path / "SASRec" / "seed1.npz"
    names = data.dataset.field2id_token["user_id"][1:][::-1].astype(str)
    if change == "twice":
        names[0] = names[1]
    np.savez(path, user=names, rank=np.arange(users), ties=np.zeros(users, int))
    table = rows(tmp_path)
    if change != "none":
        with pytest.raises(UserError, match="are not those of the results" if change == "users" else "run it anew"):
            groups.fill(table, tiny)
        return
    groups.fill(table, tiny)
    ranks, counts = table[0].results[0].ranks, {}
    lines = [line.split("\t")[:2] for line in (tiny / "tiny" / "tiny.inter").read_text().splitlines()[1:]]
    for user, _ in lines:
        counts[user] = counts.get(user, 0) + 1
    # of three interactions RecBole tests one and validates none
    assert ranks["history"].tolist() == [max(counts[user] - 2, 2) for user in ranks["user"]]
    assert groups.has_groups(table[0].results[0])


def test_the_command_prints_groups_and_lists(folder, tmp_path, capsys):
    for path in (folder / "ContRec").glob("*.json"):
        content = json.loads(path.read_text())
        content["card"]["diversity_vectors"] = "SVD of something"
        content["test_lists"] = {"at": 10, "beyond": BEYOND, "examples": EXAMPLES}
        path.write_text(json.dumps(content))
    (tmp_path / "all").mkdir()
    for name in ("ContRec", "SASRec"):
        (folder / name).rename(tmp_path / "all" / name)
    command = ["--dataset=all", f"--output={tmp_path}", "--tables-only", "--models", "ContRec"]
    assert compare.main(command) == 0 and "cold targets" not in capsys.readouterr().out
    assert compare.main([*command, "--groups", "--beyond"]) == 0
    text = capsys.readouterr().out
    assert "cold targets, 2 users" in text
    assert "| ContRec | .2500 ± .0000 | .5000 ± .0000 | .1250 ± .0000 | .7500 ± .0000 | 12.35 | 7.89 |" in text
    assert "| SASRec | - | - | - | - | - | - |" in text and "Vectors: SVD of something." in text
    shown = (tmp_path / "all" / "report.html").read_text()
    assert "User ann: target Star Wars &lt;1&gt;, in 1 of 1 lists" in shown and "✓ Star Wars &lt;1&gt;" in shown
    assert "History, the latest last: q; Alien" in shown and "7.89" in shown and "in words" not in shown


def test_the_page_shows_what_models_say_in_words(folder):
    user = EXAMPLES["users"][0]
    for name, own in (("ContRec", {**user, "answer": "<b>a film</b>"}), ("SASRec", user)):
        path = min((folder / name).glob("*.json"))
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "test_lists": {"examples": {**EXAMPLES, "users": [own]}}}))
    shown = page.example_users(rows(folder))
    line = next(line for line in shown.splitlines() if "in words<" in line)
    assert '<td class="text">&lt;b&gt;a film&lt;/b&gt;</td>' in line and '<td class="text"></td>' in line


EXAMPLES = {
    "users": [{"user": "ann", "history": ["q", "p"], "target": "t", "top": ["p", "t"]}],
    "titles": {"t": "Star Wars <1>", "p": "Alien"},
}


def test_no_lists_no_table():
    assert page.example_users([]) == "" and set(tables.SHARES) < set(tables.BEYOND)
