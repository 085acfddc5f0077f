"""The benchmark's arithmetic on known numbers, and one small comparison from runs to tables and pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import compare as compare_script
from benchmarks.lib import asked, runs, significance
from benchmarks.report import rows as report_rows
from benchmarks.report import tables
from recbole_contrec.errors import UserError
from tests.helpers.options import TINY_CONTREC
from tests.helpers.results import write_result


@pytest.fixture
def folder(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path, "ContRec", seed, [1, 1, 2, 1, 3, 1], score=0.2)
        write_result(tmp_path, "SASRec", seed, [9, 2, 20, 2, 5, 1], model="SASRec", score=0.1)
    write_result(tmp_path, "BPR", 1, [30] * 6, model="BPR", score=0.3, masked=True)
    return tmp_path


def test_rows_are_ordered_by_validation_and_their_means_are_right(folder):
    table = report_rows.rows(folder, ["ContRec", "SASRec"])
    assert [row.name for row in table] == ["ContRec", "SASRec"]
    assert [row.name for row in report_rows.rows(folder)][-1] == "BPR"  # its validation leaves seen items out
    line = tables.accuracy_table(table).splitlines()[2]
    assert line.startswith("| ContRec |  | 2 | 50 | .2000 | **.2150** ± .0071 | .2150 ± .0071 |")
    further = tables.accuracy_table(table).splitlines()[4:]
    assert further[:2] == ["", "| model | NDCG@5 | HR@5 | MRR@5 | NDCG@20 | HR@20 | MRR@20 |"]
    assert further[3] == "| ContRec |" + " .2150 ± .0071 |" * 6 and len(further) == 5
    costs = tables.cost_table(table).splitlines()
    assert "core-s to SASRec's best, .1000" in costs[0]
    assert costs[2].startswith(
        "| ContRec |  | 10.0 | 22.0 | 12.0 | 3 | 111 | 1,234 | 700 | 9,999 |"
    )  # .1 in its first epoch
    assert costs[3].startswith("| SASRec | as in RecBole | 10.0 | 22.0 | 22.0 |")
    assert "to SASRec's best" not in tables.cost_table(table[:1])


def test_seconds_of_two_devices_have_no_mean(folder):
    write_result(folder, "ContRec", 3, [1] * 6, score=0.2, device="NVIDIA H100")
    row = report_rows.rows(folder, ["ContRec"])[0]
    row.results[2].content["curve"][-1]["core_seconds"] = 9999
    line = tables.cost_table([row]).splitlines()[2]
    assert (
        line.startswith("| ContRec |  | 10.0 | ")
        and "| cpu, 1 threads (2 of 3 runs) |" in line
        and len(row.results) == 3
    )


def test_another_card_is_marked_and_never_the_baseline(folder):
    write_result(folder, "GRU4Rec", 1, [1] * 6, model="GRU4Rec", score=0.15, users=7)
    table = report_rows.rows(folder, ["ContRec", "SASRec", "GRU4Rec"])
    assert report_rows.mismatches(table) == {"GRU4Rec": ["users"]}
    text = tables.accuracy_table(table)
    assert "| GRU4Rec † |" in text and "† GRU4Rec differs from ContRec in users: not comparable" in text
    assert tables.best_baseline(table).name == "SASRec" and "GRU4Rec" not in tables.test_table(table)


@pytest.mark.parametrize(
    "own, keys",
    [
        ({"split": {"GTS": [5.0, 9.0]}}, ["split"]),
        ({"split": {"LS": "valid_and_test"}, "targets": {"valid": 6, "test": 6}}, ["split", "targets"]),
        ({"group_by": "user"}, ["group_by"]),
    ],
)
def test_rows_of_different_splits_are_not_compared(tmp_path, own, keys):
    facts = {"targets": 1234, "cold_items": 5, "cold_users": 6, "without_history": 7}
    split = {"split": {"GTS": [5.0, 8.0]}, "targets": {"valid": 1234, "test": 1234}}
    split["held_out"] = {"valid": facts, "test": {**facts, "targets": 99}}
    write_result(tmp_path, "ContRec", 1, [1] * 6, score=0.3, **split)
    write_result(tmp_path, "SASRec", 1, [2] * 6, model="SASRec", score=0.2, **split)
    write_result(tmp_path, "GRU4Rec", 1, [1] * 6, model="GRU4Rec", score=0.1, **{**split, **own})
    assert report_rows.mismatches(report_rows.rows(tmp_path)) == {"GRU4Rec": keys}
    text = tables.report(tmp_path)
    assert f"† GRU4Rec differs from ContRec in {', '.join(keys)}: not comparable" in text
    assert text.startswith(
        "Split GTS 5, 8; validation: 1,234 targets, 5 of cold items, 6 of cold users; test: 99 targets, 5 of"
    )
    assert tables.best_baseline(report_rows.rows(tmp_path)).name == "SASRec"


def test_leave_one_out_needs_no_word_of_its_split(folder):
    for path in folder.glob("*/*.json"):
        content = json.loads(path.read_text())
        content["card"]["split"] = {"LS": "valid_and_test"}
        path.write_text(json.dumps(content))
    assert tables.report(folder).startswith("| model |")


def test_interactions_of_another_file_are_marked_though_they_are_as_many(folder):
    for name, content in (("ContRec", "one"), ("SASRec", "another")):
        for path in (folder / name).glob("*.json"):
            files = {"tiny.inter": content, "tiny.item": f"of {name}"}  # texts may be added, for those who read them
            path.write_text(json.dumps({**json.loads(path.read_text()), "data": files}))
    table = report_rows.rows(folder, ["ContRec", "SASRec"])
    assert report_rows.mismatches(table) == {"SASRec": ["tiny.inter"]} and tables.best_baseline(table) is None
    assert "† SASRec differs from ContRec in tiny.inter: not comparable" in tables.accuracy_table(table)


def test_a_row_that_masks_has_its_masked_test_alone(folder):
    """BPR validates best of all, on a ranking that nobody else has."""
    table = report_rows.rows(folder)
    assert report_rows.mismatches(table) == {"BPR": ["seen_items_masked"]} and report_rows.masked_alone(table) == {
        "BPR"
    }
    text = tables.accuracy_table(table)
    assert f"| BPR ‡ | as in RecBole | 1 | 50 |{'  |' * 4} .3100 / .3100 |" in text and "†" not in text
    assert text.endswith(tables.MASKED_NOTE) and "‡" not in tables.accuracy_table(table[:2])
    assert tables.best_baseline(table).name == "SASRec" and "BPR" not in tables.test_table(table)
    costs = tables.cost_table(table).splitlines()
    assert costs[-1].startswith("| BPR | as in RecBole | 10.0 | 22.0 |  | 3 |")
    assert report_rows.masked_alone(table[2:]) == set()  # alone, it is compared with nobody
    assert "| **.3100** |" in tables.accuracy_table(table[2:])
    write_result(folder, "BPR", 2, [30] * 6, model="BPR", score=0.3, masked=True, users=7)
    assert "BPR † ‡" in tables.accuracy_table(report_rows.rows(folder))
    write_result(folder, "BPR", 2, [30] * 6, model="BPR", score=0.3)  # one seed of two
    table = report_rows.rows(folder)
    assert report_rows.masked_alone(table) == set()
    assert "differs from BPR in seen_items_masked: not comparable" in tables.accuracy_table(table)


def test_shortened_histories_are_marked(folder):
    write_result(folder, "TokenRec", 1, [1] * 6, score=0.05, first_interactions_only=100)
    odd = report_rows.mismatches(report_rows.rows(folder, ["ContRec", "TokenRec"]))
    assert odd == {"TokenRec": ["first_interactions_only"]}


def test_histories_that_did_not_fit_are_marked(folder):
    write_result(folder, "TokenRec", 1, [1] * 6, score=0.05, histories_cut_to="the latest items that fit")
    table = tables.accuracy_table(report_rows.rows(folder, ["ContRec", "TokenRec"]))
    assert "50, cut" in table and table.count("cut") == 1


def test_a_baseline_that_finds_nothing_has_no_relative_difference(tmp_path):
    write_result(tmp_path, "ContRec", 1, [1, 1, 2, 1, 3, 1], score=0.2)
    write_result(tmp_path, "SASRec", 1, [30] * 6, model="SASRec", score=0.1)
    text = tables.test_table(report_rows.rows(tmp_path))
    assert "inf" not in text and "nan" not in text and " | - | " in text and "several targets" not in text


def test_the_paired_test_is_against_the_best_baseline(folder):
    text = tables.test_table(report_rows.rows(folder, ["ContRec", "SASRec"]))
    contrec = significance.ndcg(np.array([1, 1, 2, 1, 3, 1]), 0).mean()
    sasrec = significance.ndcg(np.array([9, 2, 20, 2, 5, 1]), 0).mean()
    assert "against SASRec" in text and f"| ContRec | {contrec - sasrec:+.4f} |" in text
    assert f"{contrec / sasrec - 1:+.1%}" in text


def test_controls_and_recbole_s_own_models_are_told_apart(folder):
    write_result(folder, "SASRecAll", 1, [2] * 6, model="SASRecAll", score=0.15)
    table = report_rows.rows(folder, ["ContRec", "SASRec", "SASRecAll"])
    assert tables.best_baseline(table).name == "SASRecAll"
    assert tables.best_baseline(table, report_rows.is_recbole).name == "SASRec"
    report = tables.report(folder, ["ContRec", "SASRec", "SASRecAll"])
    assert "against SASRecAll |" in report and "against SASRec |" in report
    assert tables.report(folder, ["ContRec", "SASRec"]).count("against SASRec |") == 1


def test_seconds_until_a_score_is_reached(folder):
    content = report_rows.rows(folder, ["ContRec"])[0].results[0].content
    assert tables.seconds_to_reach(content, 0.15) == 2 + 20 and tables.seconds_to_reach(content, 0.5) is None
    assert tables.seconds_to_best(content) == 22


def test_an_epoch_without_a_validation_is_an_epoch():
    assert (
        tables.epoch_seconds({"curve": [{"epoch": 4, "core_seconds": 50.0}, {"epoch": 9, "core_seconds": 120.0}]}) == 12
    )


def test_health_of_codes_is_the_worst_of_seeds_and_codebooks(tmp_path):
    report = {
        "rows": 5,
        "codebook_size": 4,
        "codes_in_use": [1.0, 0.75],
        "perplexity": [0.8, 0.7],
        "collisions": 0.5,
        "collisions_left": 0.0,
        "unexplained_held_out": 0.4,
        "neighbour_overlap": 0.6,
    }
    worse = {**report, "codes_in_use": [0.5, 1.0], "perplexity": [0.9, 0.625], "unexplained_held_out": 0.6}
    other, ranks = {**worse, "rows": 6}, np.ones(6)
    for name, of_seeds in (
        ("TokenRec", (report, worse)),
        ("TokenRec-beam", (worse, report)),
        ("wide", (other, other)),
        ("ContRec", ({}, {})),
    ):
        for seed, found in enumerate(of_seeds):
            write_result(
                tmp_path,
                name,
                seed,
                ranks,
                model="TokenRec",
                score={"TokenRec": 0.3, "TokenRec-beam": 0.2}.get(name, 0.1),
            )
            path = tmp_path / name / f"seed{seed}.json"
            content = json.loads(path.read_text())
            content["stages"]["item tokenizer"] = {"seconds": 1.0, "report": found}
            path.write_text(json.dumps(content))
    lines = tables.codes_table(report_rows.rows(tmp_path)).splitlines()[2:]
    assert [
        line.split(" | ") for line in lines
    ] == [  # TokenRec-beam has the tokenizers of TokenRec, ContRec has no codes
        ["| TokenRec", "items", "2", "5", "2 of 4", ".5000", ".6250", "50.0%", "0.0%", ".5000", ".6000 |"],
        ["| wide", "items", "2", "6", "2 of 4", ".5000", ".6250", "50.0%", "0.0%", ".6000", ".6000 |"],
    ]


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        tables.report(tmp_path)


# runs


def test_from_runs_to_tables_and_pictures(tiny, workplace, monkeypatch, capsys):
    def compare(*arguments):
        return compare_script.main(
            ["--dataset=tiny", f"--data_path={tiny}", "--output=results", "--seeds=1", *arguments]
        )

    settings = [argument for argument in TINY_CONTREC if "show_progress" not in argument]
    settings += ["--answer_weight=0.1", "--vocabulary_size=300"]
    assert compare("--models", "ContRec", *settings) == 0
    folder = workplace / "results" / "tiny"
    stored = json.loads((folder / "ContRec" / "seed2020.json").read_text())
    assert len(stored["curve"]) == stored["epochs"] == 2 and stored["test_result_seen_masked"]["ndcg@10"] >= 0
    assert str(workplace) not in json.dumps(stored) and not list(folder.glob("*/*.work"))
    with np.load(folder / "ContRec" / "seed2020.npz") as ranks:
        mean = significance.ndcg(ranks["rank"], ranks["ties"]).mean()
        assert {"user", "item", "history", "popularity", "above", "seen"} <= set(ranks)
    assert mean == pytest.approx(stored["test_result"]["ndcg@10"], abs=1e-4)
    lists = stored["test_lists"]
    assert {*lists["beyond"]} == {*tables.BEYOND} and 0 < lists["beyond"]["itemcoverage"] <= 1
    assert all(len(user["top"]) == 10 and user["history"] for user in lists["examples"]["users"])
    assert all(isinstance(user["answer"], str) for user in lists["examples"]["users"])
    assert stored["card"]["diversity_vectors"].startswith("SVD") and (folder / "report.html").is_file()
    assert (folder / "README.md").read_text().endswith(tables.report(folder))
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("training.png", "evaluation.png"))
    assert "ContRec" in capsys.readouterr().out

    def fails(*_, **__):
        raise AssertionError("a finished run was repeated")

    monkeypatch.setattr(runs.subprocess, "Popen", fails)
    assert compare("--models", "ContRec", *settings) == 0
    assert compare("--models", "Pop", "--tables-only") == 0
    capsys.readouterr()
    others = [*(argument for argument in settings if "dropout" not in argument), "--dropout=0.25"]
    assert compare("--models", "ContRec", *others) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "seed2020.json was run with dropout=0.3, not 0.25. Choose" in error
        and "--again" in error
    )
    (tiny / "tiny" / "tiny.inter").write_text((tiny / "tiny" / "tiny.inter").read_text().replace("\ti7\t", "\ti8\t", 1))
    assert (
        compare("--models", "ContRec", *settings) == 2 and "was run with another tiny.inter" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        compare("--models", "Pop", "ContRec", "--name=both")
    with pytest.raises(SystemExit, match="2"):
        compare("--models", "Pop", "--topk=[5,10]")
    assert "--topk=[5,10]: the tables show Hit, NDCG and MRR at 5, 10 and 20" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_a_failed_one_says_why(tiny, workplace, capsys, monkeypatch):
    """Four epochs, of which the first two were run before; then a model with a setting nobody knows."""
    from recbole_contrec.quick_start import run
    from recbole_contrec.training.trainer import RunTrainer

    one = runs.Run(
        "ContRec",
        "tiny",
        2020,
        workplace / "results",
        settings=tuple(
            argument
            for argument in (*TINY_CONTREC, "--epochs=4")
            if "show_progress" not in argument and argument != "--epochs=2"
        ),
    )
    save_last = RunTrainer.save_state

    def save_and_die(self, epoch, train_data):
        save_last(self, epoch, train_data)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunTrainer, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run("ContRec", "tiny", arguments=[*one.arguments(str(tiny)), f"--checkpoint_dir={one.work / 'saved'}"])
    (five,) = [replace(one, settings=(*one.settings[:-1], "--epochs=5"))]
    with pytest.raises(UserError, match=r"seed2020.work was run with epochs=4, not 5. .*--again"):
        asked.missing([five], str(tiny))
    assert asked.missing([one], str(tiny)) == [one]
    epochs = []
    runs.execute(one, str(tiny), lambda epoch, score: epochs.append(epoch))
    assert epochs == [2, 3] and json.loads(one.result.read_text())["epochs"] == 4
    assert (
        compare_script.main(
            [
                "--models",
                "ContRec",
                "--dataset=tiny",
                f"--data_path={tiny}",
                "--output=other",
                "--seeds=1",
                "--dropuot=0.1",
            ]
        )
        == 2
    )
    assert "unknown setting dropuot" in capsys.readouterr().err
    assert not list((workplace / "other").rglob("*"))


def test_tables_of_nothing_say_so(tmp_path, capsys):
    assert compare_script.main(["--dataset=nosuch", "--tables-only", f"--output={tmp_path}"]) == 1
    assert "holds no finished run" in capsys.readouterr().err


def test_settings_without_a_value_are_refused(capsys):
    with pytest.raises(SystemExit):
        compare_script.main(["--dataset=tiny", "--epochs", "3"])
    assert "settings are --key=value" in capsys.readouterr().err


@pytest.mark.parametrize(
    "model, length, told",
    [
        ("SASRec", 50, "as in RecBole"),
        ("SASRec", 20, "as in RecBole, histories of 20"),
        ("SASRec-200", 200, "as in RecBole, histories of 200"),
        ("LightGCN", None, "as in RecBole"),  # a general model reads no history
        ("ContRec", 200, ""),  # a record without settings
    ],
)
def test_a_model_of_recbole_says_how_long_its_histories_are(model, length, told):
    assert report_rows.short_method({"card": {"model": model, "max_history": length}}) == told


@pytest.mark.parametrize(
    "chosen, told",
    [
        ({"text_similarity": {"value": 0.0}}, ""),
        ({"text_similarity": {"value": 4.0}}, ", text similarity"),
        ({}, ""),  # the data have no texts
    ],
)
def test_the_method_of_a_row_is_that_which_validation_chose(chosen, told):
    settings = {"repeat_bias": False, "hidden_dropout_prob": 0.1, "text_similarity": None, "MAX_ITEM_LIST_LENGTH": 10}
    content = {"settings": settings, "card": {"model": "SASRecAll"}, "chosen_on_validation": chosen}
    assert report_rows.short_method(content) == f"SASRec, loss at every position{told}"


def test_a_general_model_of_recbole_has_a_masked_row(tiny, workplace, executed):
    """LightGCN trains on sampled pairs, reads no history and has loaders of its own."""
    command = ["--dataset=tiny", f"--data_path={tiny}", f"--output={workplace / 'results'}", "--seeds=1", "--epochs=1"]
    assert compare_script.main([*command, "--models", "LightGCN", "GRU4Rec"]) == 0
    folder = workplace / "results" / "tiny"
    stored = json.loads((folder / "LightGCN" / "seed2020.json").read_text())
    assert stored["test_result_seen_masked"] == stored["test_result"] and stored["card"]["seen_items_masked"]
    table = report_rows.rows(folder)
    assert [row.name for row in table] == ["GRU4Rec", "LightGCN"] and report_rows.masked_alone(table) == {"LightGCN"}
    assert "‡ | as in RecBole | 1 | all |  |  |" in tables.accuracy_table(table)
    assert (folder / "LightGCN" / "seed2020.npz").is_file()


def test_models_are_compared_on_a_split_by_time(tiny, workplace, executed):
    """With several targets a user: the test without seen items, and a paired test over users."""
    command = ["--dataset=tiny", f"--data_path={tiny}", f"--output={workplace / 'by-time'}", "--seeds=1", "--epochs=1"]
    split = "--eval_args={'split': {'GTS': ['60%', '80%']}}"
    assert compare_script.main([*command, "--models", "SASRecAll", "SASRec", split]) == 0
    folder = workplace / "by-time" / "tiny"
    cards = [json.loads((folder / name / "seed2020.json").read_text())["card"] for name in ("SASRecAll", "SASRec")]
    assert cards[0]["split"] == cards[1]["split"] and cards[0]["held_out"] == cards[1]["held_out"]
    with np.load(folder / "SASRec" / "seed2020.npz") as ranks:
        assert len({*ranks["user"]}) < len(ranks["user"]) == cards[0]["targets"]["test"]
    text = (folder / "README.md").read_text()
    moments = ", ".join(f"{moment:.9g}" for moment in cards[0]["split"]["GTS"])
    assert f"Split GTS {moments}; validation: " in text and "not comparable" not in text
    assert tables.test_table(report_rows.rows(folder))
    assert (
        "Users have several targets." in text and "Users have several targets." in (folder / "report.html").read_text()
    )
    # with another split in the same folder: named, and stopped
    other = "--eval_args={'split': {'GTS': ['60%', '90%']}}"
    assert compare_script.main([*command, "--models", "SASRec", other]) == 2
