"""The dial of the diffusion head: which points there are, tables on known numbers, and a small one end to end."""

import json
from argparse import Namespace

import pytest

from benchmarks import dial
from benchmarks.dial import Point
from benchmarks.report import dial as dial_report
from tests.helpers.options import TINY_CONTREC, changed


def options(**lists):
    return Namespace(**{"steps": [1], "samples": [1], "guidance": [0.0], "ddim_eta": [0.0], **lists})


def record(steps, samples, score, speed, guidance=0.0, noise=0.0):
    part = {"ndcg@10": score, "users_per_second": speed}
    return {
        "steps": steps,
        "samples": samples,
        "guidance": guidance,
        "ddim_eta": noise,
        "commit": "abc",
        "device": "cpu, 1 threads",
        "valid": part,
        "test": {"ndcg@10": score / 2, "users_per_second": 2 * speed},
    }


@pytest.fixture
def content():
    """A record of four measured points and a skipped one."""
    skipped = {**record(50, 64, 0, 0), "estimated_seconds": 4321.0}
    del skipped["valid"], skipped["test"]
    card = {
        "dataset": "tiny",
        "model": "ContRec",
        "seed": 1,
        "users": 40,
        "items": 1234,
        "ranking": {"test": "full"},
        "seen_items_masked": False,
    }
    points = [
        skipped,
        record(10, 4, 0.12, 100),
        record(1, 1, 0.1, 5000),
        record(10, 1, 0.05, 1000),
        record(10, 1, 0.06, 900, noise=1.0),
    ]
    return {"card": card, "settings": {}, "weights": "0", "points": points}


# points


def test_one_step_stands_once_whatever_the_sampling_noise():
    found = dial.select(options(steps=[1, 5], ddim_eta=[0.5, 1.0]), levels=200, guided=False).points
    assert found == [Point(1, 1, 0, 0), Point(5, 1, 0, 0.5), Point(5, 1, 0, 1)]


def test_what_a_head_cannot_do_is_left_out_with_a_message():
    wanted = options(steps=[2, 50], guidance=[0.0, 1.5])
    found = dial.select(wanted, levels=10, guided=False)
    assert found.points == [Point(2, 1, 0, 0)]
    assert ["50 steps" in found.left_out[0], "guidance 1.5" in found.left_out[1]] == [True, True]
    assert dial.select(wanted, levels=50, guided=True) == (
        [Point(2, 1, 0, 0), Point(50, 1, 0, 0), Point(2, 1, 1.5, 0), Point(50, 1, 1.5, 0)],
        [],
    )


@pytest.mark.parametrize("point", [Point(3, 1, 0, 0), Point(3, 1, 2.0, 0), Point(3, 4, 0, 0), Point(3, 1, 0, 1.0)])
def test_every_part_of_a_point_reaches_the_ranking(assembled, point):
    loaded = assembled("ContRec", "--condition_dropout=0.1", "--noise_levels=20")
    loaded.model.eval()
    loaded.model.head.none.data.normal_()
    for parameter in loaded.model.head.denoiser.parameters():  # its last layer starts at zero
        parameter.data.normal_(std=0.3)
    users = next(iter(loaded.data.valid))[0]
    dial.turn(loaded, Point(1, 1, 0, 0) if point == Point(3, 1, 0, 0) else Point(3, 1, 0, 0))
    before = loaded.model.full_sort_predict(users)
    dial.turn(loaded, point)
    assert not loaded.model.full_sort_predict(users).allclose(before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset=tiny", "--steps", "0"], "0 is not at least 1"),
        (["--dataset=tiny", "--ddim_eta", "0", "1.5"], "1.5 is not from 0 to 1"),
        (["--checkpoint=saved/RUN", "--seed=3"], "leave out --model, --dataset and --seed"),
        ([], "name a data set"),
        (["--dataset=tiny", "--epochs", "3"], "settings are --key=value"),
    ],
)
def test_options_that_make_no_sense_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        dial.main(arguments)
    assert message in capsys.readouterr().err


# table and picture


def test_the_front_is_what_no_faster_point_reaches(content):
    assert [point["steps"] for point in dial_report.front(content["points"])] == [1, 10]
    same = [record(1, 1, 0.1, 10), record(2, 1, 0.1, 5), record(5, 1, 0.2, 5)]
    assert dial_report.front(same) == [same[0], same[2]]


def test_the_table_is_sorted_and_marks_what_was_skipped(content):
    assert dial_report.table(content["points"]).splitlines()[2:] == [
        "| 0 | 0 | 1 | 1 | **.1000** | .0500 | 5,000 | 10,000 |",
        "| 0 | 0 | 1 | 10 | .0500 | .0250 | 1,000 | 2,000 |",
        "| 0 | 0 | 4 | 10 | **.1200** | .0600 | 100 | 200 |",
        "| 0 | 0 | 64 | 50 | skipped: about 4,321 s |  |  |  |",
        "| 0 | 1 | 1 | 10 | .0600 | .0300 | 900 | 1,800 |",
    ]
    text = dial_report.report(content)
    assert "1,234 items, full ranking, seen items not masked" in text and "cpu, 1 threads, commit abc" in text
    assert text == dial_report.report({**content, "points": content["points"][::-1]})


def test_the_pivot_has_one_step_under_every_noise_and_holes_for_what_was_skipped(content):
    assert dial_report.pivot(content["points"]).splitlines() == [
        "| guidance | sampling noise | samples | 1 step | 10 steps |",
        "| --- | --- | --- | --- | --- |",
        "| 0 | 0 | 1 | .1000 | .0500 |",
        "| 0 | 0 | 4 |  | .1200 |",
        "| 0 | 1 | 1 | .1000 | .0600 |",
        "| 0 | 1 | 4 |  |  |",
    ]


def test_the_picture_has_a_panel_a_noise_and_a_line_a_number_of_samples(content, tmp_path, monkeypatch):
    drawn, draw_panel = [], dial_report._draw_panel

    def draw_and_count(axes, records, samples):
        drawn.append((len(records), samples))
        draw_panel(axes, records, samples)

    monkeypatch.setattr(dial_report, "_draw_panel", draw_and_count)
    assert dial_report.draw(content, tmp_path / "dial.png").read_bytes().startswith(b"\x89PNG")
    assert drawn == [(3, [1, 4]), (2, [1, 4])]  # the one-step point is in both


# end to end


def test_from_training_to_the_picture(tiny, workplace, monkeypatch, capsys):
    def turn_dial(*arguments):
        return dial.main(["--output=results", "--limit=60", *arguments])

    training = ["--dataset=tiny", f"--data_path={tiny}", *changed(TINY_CONTREC, ["--epochs=1"]), "--noise_levels=20"]
    points = ["--steps", "1", "2", "50", "--samples", "1", "2", "--guidance", "0", "1", "--ddim_eta", "0"]
    assert turn_dial(*training, *points) == 0
    folder = workplace / "results" / "tiny-dial"
    stored = json.loads((folder / "dial.json").read_text())
    assert [dial.point_of(each) for each in stored["points"]] == [
        Point(1, 1, 0, 0),
        Point(2, 1, 0, 0),
        Point(1, 2, 0, 0),
        Point(2, 2, 0, 0),
    ]
    trained = json.loads((folder / "saved" / "ContRec-seed2020" / "result.json").read_text())
    assert stored["points"][0]["valid"]["ndcg@10"] == pytest.approx(trained["best_valid_result"]["ndcg@10"], abs=1e-4)
    assert stored["points"][0]["test"]["ndcg@10"] == pytest.approx(trained["test_result"]["ndcg@10"], abs=1e-4)
    assert str(workplace) not in json.dumps(stored) and stored["card"]["dataset"] == "tiny"
    assert not {"sampling_steps", "data_path"} & stored["settings"].keys()
    assert (folder / "README.md").read_text() == dial_report.report(stored)
    assert (folder / "dial.png").read_bytes().startswith(b"\x89PNG")
    assert not (workplace / "log_tensorboard").exists() and not list(folder.glob("*.part"))
    printed = capsys.readouterr().out
    assert "left out: 50 steps" in printed and "left out: guidance 1" in printed

    # again from the checkpoint: only what is new is measured, and what was skipped only under a higher limit
    measured = []

    def estimate(loaded):
        measured.append(loaded.model.sampling.steps)
        return 100

    monkeypatch.setattr(dial, "estimate_seconds", estimate)
    given = [
        f"--checkpoint={folder / 'saved' / 'ContRec-seed2020'}",
        "--samples",
        "1",
        "--steps",
        "1",
        "4",
        "--ddim_eta",
        "0",
    ]
    assert turn_dial(*given) == 0 and measured == [4]
    assert turn_dial(*given) == 0 and measured == [4]
    assert json.loads((folder / "dial.json").read_text())["points"][-1]["estimated_seconds"] == 100
    assert turn_dial(*given, "--limit=200") == 0 and measured == [4, 4]
    assert "valid" in json.loads((folder / "dial.json").read_text())["points"][-1]

    # the trained model is taken again, as long as it is asked for with the same settings
    assert turn_dial(*training, "--steps", "1", "--samples", "1") == 0 and measured == [4, 4]
    assert turn_dial(*changed(training, ["--dropout=0.7"])) == 2
    assert "ContRec-seed2020 was trained with dropout=0.3, not 0.7" in capsys.readouterr().err

    # points of other settings are never mixed in, and tables need no model
    assert turn_dial(*given, "--mask_seen=True") == 2
    assert "holds points of other mask_seen" in capsys.readouterr().err
    assert turn_dial("--tables-only", "--dataset=tiny") == 0 and turn_dial("--tables-only", "--dataset=other") == 2


def test_a_model_without_a_diffusion_head_is_refused(run_tiny, capsys):
    checkpoint = run_tiny("Pop", "--epochs=1")["checkpoint"]
    assert dial.main([f"--checkpoint={checkpoint}", "--output=results"]) == 2
    assert "Pop has no diffusion head" in capsys.readouterr().err
