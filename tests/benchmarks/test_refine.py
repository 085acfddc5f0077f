"""What self-improvement is worth: the plan of runs, tables and picture on known numbers, and one end to end."""

import json

import numpy as np
import pytest

from benchmarks import refine
from benchmarks.lib import significance
from benchmarks.report import refine as refine_report
from benchmarks.report import rows as report_rows
from tests.helpers.options import TINY

USE = {"collisions": 0.0, "codes_in_use": [1.0, 0.5], "beginnings": [0.25, 1.0]}
RANKS = {
    "TIGER": [2, 1, 9, 4, 3, 1],
    "aligned": [2, 1, 8, 4, 3, 1],
    "SIIT-states": [1, 1, 5, 4, 2, 1],
    "written": [1, 1, 7, 4, 2, 1],
    "random": [3, 1, 20, 4, 3, 2],
}
TINY_TIGER = [
    "--hidden_size=16",
    "--vector_size=16",
    "--n_layers=1",
    "--inner_size=32",
    "--beam_size=10",
    "--refine_every=1",
    "--alignment_items=8",
    *(argument for argument in TINY if not argument.startswith("--stopping_step")),
]


def refinement(epoch, changed=0.25, **verdict):
    return {
        "epoch": epoch,
        "share_changed": changed,
        "share_wanting_change": 0.5,
        "valid_at_once": 0.09,
        **USE,
        **verdict,
    }


def write_run(folder, name, seed=1, scores=(0.1, 0.2, 0.3, 0.2), refinements=(), **card):
    """A result as a run leaves it, as far as the report reads it."""
    best = {"ndcg@10": max(scores), "hit@10": 2 * max(scores)}
    content = {
        "best_valid_score": max(scores),
        "best_valid_result": best,
        "best_epoch": int(np.argmax(scores)),
        "epochs": len(scores),
        "test_result": {metric: value / 2 for metric, value in best.items()},
        "curve": [
            {"epoch": epoch, "core_seconds": 10.0 * (epoch + 1), "score": score} for epoch, score in enumerate(scores)
        ],
        "stages": {"identifiers": {"seconds": 1.0, "report": USE}},
        "refinements": list(refinements),
        "settings": {"repeat_bias": True, "hidden_dropout_prob": 0.2, "MAX_ITEM_LIST_LENGTH": 50},  # they tell a method
        "card": {
            **dict.fromkeys(report_rows.SHARED),
            "dataset": "tiny",
            "valid_metric": "NDCG@10",
            "seed": seed,
            "device": "cpu",
            **card,
        },
    }
    path = folder / name / f"seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    np.savez(
        path.with_suffix(".npz"),
        user=np.array(list("abcdef")),
        rank=np.array(RANKS[name if name in RANKS else name.partition("-")[2]]),
        ties=np.zeros(6, int),
    )


@pytest.fixture
def folder(tmp_path):
    """One seed of all five with one tokenizer, and two of a pair with another."""
    for kind in RANKS:
        write_run(tmp_path, f"rqvae-{kind}")
    kept, back = refinement(1, 0.2, valid_before=0.1, valid_after=0.4, kept=True), refinement(2, 0.4)
    write_run(tmp_path, "rqvae-SIIT-states", 1, (0.1, 0.2, 0.4, 0.3), [kept, refinement(3, 0.4)])
    write_run(
        tmp_path,
        "rqvae-SIIT-states",
        2,
        (0.1, 0.3, 0.4, 0.3),
        [{**kept, "share_changed": 0.4}, {**back, "valid_before": 0.3, "valid_after": 0.2, "kept": False}],
    )
    anew = {key: value for key, value in refinement(1).items() if key != "share_wanting_change"}
    write_run(tmp_path, "rqvae-written", 1, refinements=[{**anew}])
    write_run(tmp_path, "rqvae-random", 1, (0.1, 0.1, 0.1, 0.1), [])
    for seed in (1, 2):
        write_run(tmp_path, "clusters-TIGER", seed)
        write_run(tmp_path, "clusters-SIIT-states", seed, (0.1, 0.2, 0.3, 0.6))
    return tmp_path


# plan


def test_every_tokenizer_and_seed_has_five_runs_of_one_budget(tmp_path, config_of):
    given = refine._parse(
        ["--dataset=tiny", "--seeds=2", "--semantic_ids", "rqvae", "pq", "--epochs=7", "--dropout=0.1"]
    )
    planned = refine.runs_of(given, tmp_path)
    assert [(run.name, run.seed) for run in planned] == [
        (f"{method}-{kind}", seed)
        for seed in (2020, 2021)
        for method in ("rqvae", "pq")
        for kind in refine_report.ORDER
    ]
    configs = [config_of(run.model, *run.settings) for run in planned[:10]]
    assert {(config["epochs"], config["dropout"]) for config in configs} == {(7, 0.1)}
    assert all(config["stopping_step"] > 1000 for config in configs)
    assert [config["semantic_ids"] for config in configs] == ["rqvae"] * 5 + ["pq"] * 5
    assert [(config["self_improve"], config["refine_rounds"] > 0, config["refinement"]) for config in configs[:5]] == [
        (False, True, "model"),
        (True, False, "model"),
        *[(True, True, "model")] * 2,
        (True, True, "random"),
    ]
    assert [config["refine_from"] for config in configs[2:5]] == ["histories", "descriptions", "histories"]
    some = refine.runs_of(refine._parse(["--dataset=tiny", "--seeds=2", "--kinds", "SIIT-states", "aligned"]), tmp_path)
    assert [run.name for run in some] == [
        f"{method}-{kind}" for method in ("rqvae", "clusters") for kind in ("aligned", "SIIT-states")
    ] * 2
    with pytest.raises(SystemExit):
        refine._parse(["--dataset=tiny", "--semantic_ids", "lsh"])


def test_what_makes_a_row_has_the_last_word(tmp_path):
    given = refine._parse(["--dataset=tiny", "--refine_rounds=5", "--refine_margin=1", "--stopping_step=3"])
    rounds = [
        [setting for setting in run.settings if "refine_rounds" in setting or "refine_margin" in setting]
        for run in refine.runs_of(given, tmp_path)[:5]
    ]
    five = ["--refine_rounds=5"]  # only what is written has a margin
    assert rounds == [[], ["--refine_rounds=0"], five, [*five, "--refine_margin=1"], five]
    assert all("--stopping_step=3" in run.settings for run in refine.runs_of(given, tmp_path))


# tables and picture


def test_rows_are_in_order_and_accuracy_in_full(folder):
    found = refine_report.ordered_rows(folder)
    assert [row.name for row in found] == [
        "clusters-TIGER",
        "clusters-SIIT-states",
        *(f"rqvae-{kind}" for kind in refine_report.ORDER),
    ]
    lines = refine_report.accuracy(found).splitlines()
    assert (
        lines[4] == "| rqvae-TIGER | SASRec, loss at every position, repeat bias "
        "| 1 | **.3000** | .6000 | **.1500** | .3000 | 2 | 4 | 10.0 |"
    )
    assert "| 2 | **.4000** ± .0000 | .8000 ± .0000 | **.2000** ± .0000 |" in lines[6]
    assert lines[6].startswith("| rqvae-SIIT-states | SASRec, loss at every position, repeat bias |")


def test_gains_are_over_common_seeds_and_users(folder):
    gain = {kind: significance.ndcg(np.array(ranks), 0) for kind, ranks in RANKS.items()}
    lines = refine_report.gains(refine_report.ordered_rows(folder)).splitlines()[2:]
    found = significance.compare(gain["SIIT-states"], gain["TIGER"])
    relative = gain["SIIT-states"].mean() / gain["TIGER"].mean() - 1
    test = f"**{relative:+.1%}** | {found.difference:+.4f} | {found.low:+.4f} to {found.high:+.4f} |"
    assert lines[0] == f"| clusters | TIGER | 2 | +100.0% | {test}"
    assert lines[1] == f"| rqvae | TIGER | 1 | +33.3% | {test}"
    assert lines[2] == f"| mean over tokenizers | TIGER |  | +66.7% | {test}"
    assert lines[3].startswith("| rqvae | aligned | 1 |") and lines[4].startswith("| rqvae | written | 1 |")
    assert lines[5].startswith("| rqvae | random | 1 | +300.0% |") and len(lines) == 6
    write_run(folder, "pq-TIGER", 7)
    write_run(folder, "pq-SIIT-states", 8)
    assert "pq" not in refine_report.gains(refine_report.ordered_rows(folder))


def test_rounds_say_what_changed_and_what_became_of_it(folder):
    lines = refine_report.refinements(refine_report.ordered_rows(folder)).splitlines()[2:]
    assert lines == [
        "| clusters-SIIT-states | start |  | 2 |  |  | 0.0% | 1.00, 0.50 | 0.25, 1.00 |  |  |  |  |",
        "| rqvae-SIIT-states | start |  | 2 |  |  | 0.0% | 1.00, 0.50 | 0.25, 1.00 |  |  |  |  |",
        "| rqvae-SIIT-states | 1 | 1 | 2 | 30.0% | 50.0% | 0.0% | 1.00, 0.50 | 0.25, 1.00 "
        "| .1000 | .0900 | .4000 | 2 kept |",
        "| rqvae-SIIT-states | 2 | 2 to 3 | 2 | 40.0% | 50.0% | 0.0% | 1.00, 0.50 | 0.25, 1.00 "
        "| .3500 | .0900 | .2500 | 1 taken back, 1 unjudged |",
        "| rqvae-written | start |  | 1 |  |  | 0.0% | 1.00, 0.50 | 0.25, 1.00 |  |  |  |  |",
        "| rqvae-written | 1 | 1 | 1 | 25.0% |  | 0.0% | 1.00, 0.50 | 0.25, 1.00 "
        "| .1000 | .0900 | .3000 | 1 unjudged |",
        "| rqvae-random | start |  | 1 |  |  | 0.0% | 1.00, 0.50 | 0.25, 1.00 |  |  |  |  |",
    ]


def test_a_refinement_that_failed_is_told_apart_from_the_others(folder):
    done = refinement(1, 0.2, kept=True)
    write_run(folder, "pq-SIIT-states", 1, refinements=[done])
    write_run(
        folder,
        "pq-SIIT-states",
        2,
        refinements=[{"epoch": 1, "share_changed": 0.0, "failed": "no room", **USE, "kept": False}],
    )
    (line,) = (
        line
        for line in refine_report.refinements(refine_report.ordered_rows(folder)).splitlines()
        if "pq-SIIT-states | 1" in line
    )
    assert "| 20.0% | 50.0% |" in line and line.endswith("| 1 kept, 1 failed |")


def test_the_report_marks_another_protocol_and_needs_a_run(folder, tmp_path_factory):
    write_run(folder, "rqvae-aligned", 1, seen_items_masked=True)
    text = refine_report.report(folder)
    assert "| rqvae-aligned † |" in text and "rqvae-aligned differs from clusters-TIGER in seen_items_masked" in text
    with pytest.raises(ValueError, match="no finished run"):
        refine_report.report(tmp_path_factory.mktemp("empty"))


def test_the_picture_marks_what_was_refined_and_taken_back(folder, monkeypatch):
    drawn, draw_panel = [], refine_report._draw_panel

    def draw_and_keep(axes, found):
        draw_panel(axes, found)
        drawn.append(
            [
                (line.get_marker(), *line.get_xdata(), *line.get_ydata())
                for line in axes.lines
                if line.get_marker() in ("|", "x")
            ]
        )

    monkeypatch.setattr(refine_report, "_draw_panel", draw_and_keep)
    assert refine_report.draw(folder).read_bytes().startswith(b"\x89PNG")
    assert drawn[0] == [] and [mark[0] for mark in drawn[1]] == ["|", "|", "|", "x", "|"]
    assert drawn[1][0][1:] == (0.4, pytest.approx(0.14)) and drawn[1][3][1:] == (1.4, pytest.approx(0.34))


# end to end


def test_from_runs_to_tables_and_picture(tiny, workplace, monkeypatch, capsys, executed):
    names, _ = executed

    def run_refine(*arguments):
        return refine.main(
            [
                "--dataset=tiny",
                f"--data_path={tiny}",
                f"--output={workplace / 'results'}",
                "--seeds=1",
                "--semantic_ids",
                "rkmeans",
                *TINY_TIGER,
                *arguments,
            ]
        )

    assert run_refine() == 0 and names == [f"rkmeans-{kind}" for kind in refine_report.ORDER]
    folder = workplace / "results" / "tiny-refine"
    assert (folder / "README.md").read_text() == refine_report.report(folder) and (folder / "refine.png").is_file()
    rounds = {row.name: len(row.results[0].content["refinements"]) for row in refine_report.ordered_rows(folder)}
    assert rounds == {
        "rkmeans-TIGER": 0,
        "rkmeans-aligned": 0,
        "rkmeans-SIIT-states": 1,
        "rkmeans-written": 1,
        "rkmeans-random": 1,
    }
    assert "| rkmeans | TIGER | 1 |" in capsys.readouterr().out
    assert run_refine() == 0 and run_refine("--tables-only") == 0 and len(names) == 5

    def fails(run, *_):
        raise RuntimeError(f"{run} failed")

    monkeypatch.setattr("benchmarks.lib.running.execute", fails)
    assert run_refine("--seeds=2") == 1
    assert "rkmeans-SIIT-states on tiny, seed 2021 failed" in capsys.readouterr().err


def test_an_encoder_that_only_describes_is_not_of_the_start(tmp_path, tiny):
    """The texts of item_vectors are TIGER's to read, those of item_descriptions are not."""

    def of_start(*settings):
        given = refine._parse(
            ["--dataset=tiny", f"--data_path={tiny}", "--seeds=1", "--semantic_ids", "rqvae", *settings]
        )
        return refine.runs_of(given, tmp_path)[0].settings

    assert not [setting for setting in of_start("--item_descriptions=text", "--text_encoder=X") if "text" in setting]
    assert "--text_encoder=X" in of_start("--item_vectors=text", "--item_descriptions=svd", "--text_encoder=X")


def test_gains_in_the_tables_of_accuracy(tmp_path):
    for name, seeds in (("TIGER", (1, 2)), ("SIIT-states", (2, 3))):  # one seed in common
        for seed in seeds:
            write_run(tmp_path, name, seed, (0.1, 0.2 + 0.1 * seed))
    write_run(tmp_path, "SIIT-states", 2, (0.1, 0.5))
    alone = [row for row in report_rows.rows(tmp_path) if row.name == "TIGER"]
    _, _, line = refine_report.gains_by_dataset({"tiny": report_rows.rows(tmp_path), "other": alone}).splitlines()
    ours, theirs = (significance.ndcg(np.array(RANKS[name]), 0).mean() for name in ("SIIT-states", "TIGER"))
    assert line.startswith(f"| tiny | TIGER | 1 | +25.0% | **{ours / theirs - 1:+.1%}** | {ours - theirs:+.4f} |")
