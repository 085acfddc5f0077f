"""The benchmark of growth: its limits, its points and its tables, and a run end to end at tiny sizes."""

import json
from time import sleep

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.lib.scale_points import STAGES
from benchmarks.lib.synthetic import write_atomic_files, zipf_histories
from benchmarks.lib.watched import Limits, watched
from benchmarks.report.scale import continued, growth_of, shown, slope, summary
from recbole_contrec.errors import UserError
from tests.helpers.options import TINY_CONTREC

SETTINGS = [
    argument[2:]
    for argument in TINY_CONTREC
    if argument.split("=")[0] not in ("--show_progress", "--use_gpu", "--train_batch_size")
]
TINY = ["--users=40", "--items=60", "--seconds=0", "--batches=1", "--ranked_users=20", "--median=8", "--spread=0.2"]
TINY += ["--settings", *SETTINGS, "train_batch_size=64"]
WIDE = Limits(100_000, 600)


def test_every_stage_of_a_point_is_measured_once(tmp_path, capsys):
    output = tmp_path / "results" / "scale.json"
    scale.main([*TINY, f"--output={output}"])
    printed, result = capsys.readouterr().out, json.loads(output.read_text())
    (point,) = result["points"]
    assert (point["model"], point["users"], point["items"]) == ("ContRec", 40, 60) and point["interactions"] >= 200
    assert list(point["stages"]) == list(STAGES)
    for stage in point["stages"].values():
        assert stage["seconds"] > 0 and stage["peak_mib"] >= stage["start_mib"] > 0
        assert not {"over", "refused", "not_reached"} & stage.keys()
    assert point["stages"]["reading"]["rows"] == point["interactions"]
    assert point["stages"]["epoch"]["targets"] == point["interactions"] - 3 * 40  # all but the first and two held out
    assert point["stages"]["recommend"]["rows"] == 20 * 10
    assert "item vectors" in point["stages"]["stages"]["parts"]
    assert str(tmp_path) not in output.read_text()
    assert printed == summary(result) + "\n" and "| 40 | 60 |" in printed

    before = output.read_bytes()
    scale.main([*TINY, f"--output={output}"])  # nothing is left to measure
    assert output.read_bytes() == before
    with pytest.raises(SystemExit, match="2"):
        scale.main([*TINY, f"--output={output}", "--seed=1"])
    assert "scale.json holds points with seed=2020, not 1: name another --output" in capsys.readouterr().err


def test_a_point_over_its_limit_is_told_and_later_stages_are_not_reached(tmp_path, capsys):
    output = tmp_path / "scale.json"
    scale.main([*TINY, f"--output={output}", "--stage_seconds=0.01"])
    (point,) = json.loads(output.read_text())["points"]
    assert point["stages"]["reading"]["over"] == "time" and point["stages"]["epoch"] == {"not_reached": True}
    assert "over the limit of time" in (printed := capsys.readouterr().out) and "not reached" in printed


def test_reading_can_be_measured_alone(tmp_path, capsys):
    output = tmp_path / "scale.json"
    scale.main([*TINY, f"--output={output}", "--only_reading"])
    (point,) = json.loads(output.read_text())["points"]
    assert point["stages"]["reading"]["rows"] == point["interactions"]
    assert point["stages"]["epoch"] == {"left_out": True} and "| not measured |" in capsys.readouterr().out


def _take(mib: int) -> dict:
    taken = np.ones(mib << 17)
    sleep(0.3)
    return {"taken": taken.nbytes >> 20}


def test_limits_end_a_stage(tmp_path):
    def read(name):
        return json.loads((tmp_path / f"{name}.json").read_text())

    watched("free", lambda: _take(300), WIDE, tmp_path)
    start = read("free")["start_mib"]
    assert read("free")["taken"] == 300 and 295 < read("free")["peak_mib"] - start < 340
    watched("fat", lambda: _take(300), Limits(start + 200, 600), tmp_path, then=lambda _: _take(1) and 1 / 0)
    assert read("fat")["over"] == "memory" and read("fat")["peak_mib"] > start + 200
    watched("slow", _work_for_ever, Limits(100_000, 0.2), tmp_path)
    assert read("slow")["over"] == "time" and read("slow")["seconds"] > 0.2


def _work_for_ever():
    while True:
        pass


def _refuse():
    raise UserError("10 rows take\n3 GiB")


def test_what_is_refused_or_fails_is_told(tmp_path):
    watched("refused", _refuse, WIDE, tmp_path, then=lambda _: (tmp_path / "later").touch())
    record = json.loads((tmp_path / "refused.json").read_text())
    assert record["refused"] == "10 rows take 3 GiB" and not (tmp_path / "later").exists()
    watched("then", lambda: ({}, 7), WIDE, tmp_path, then=lambda n: (tmp_path / f"later{n}").touch())
    assert (tmp_path / "later7").exists()


def test_points_run_along_both_axes_or_over_the_grid():
    options = scale.parse(["--users", "1e2", "1e3", "--items", "10", "20", "--models", "A", "B"])
    assert scale.points_of(options)[::2] == [("A", 100, 10), ("A", 100, 20), ("A", 1000, 10)]
    options.grid = True
    assert len(scale.points_of(options)) == 8
    with pytest.raises(SystemExit):
        scale.parse(["--users", "1.5"])


def test_slopes_and_cells():
    assert slope([10, 100, 1000], [3, 300, 30_000]) == pytest.approx(2)
    assert slope([1, 10, 100], [1, 10, 10]) == pytest.approx(0.5)
    done = {"seconds": 5.0, "peak_mib": 1124.0, "start_mib": 100.0}
    points = [
        {"users": users, "stages": {"reading": {**done, "seconds": seconds}}}
        for users, seconds in ((10, 2.0), (100, 20.0))
    ]
    points.append({"users": 1000, "stages": {"reading": {**done, "over": "memory"}}})
    assert growth_of(points, "users", "reading", "seconds") == pytest.approx(1)
    assert growth_of(points, "users", "reading", "memory") == pytest.approx(0)
    assert growth_of(points[1:], "users", "reading", "seconds") is None
    assert shown(done) == "5 s / 1.10 GiB" and shown({"not_reached": True}) == "not reached"
    assert shown({**done, "over": "memory"}) == "over the limit of memory (5 s, 1.10 GiB)"


def test_what_would_be_needed_is_computed_from_two_points():
    assert continued([(10, 5), (20, 7)], 100) == pytest.approx(23)
    assert continued([(10, 7), (20, 5)], 100) == 5 and continued([None, (20, 5)], 100) is None

    def point(users, seconds, **more):
        stage = {"seconds": seconds, "peak_mib": 100.0 + seconds, "start_mib": 90.0}
        stages = {**dict.fromkeys(STAGES, {"not_reached": True}), "reading": {**stage, **more}}
        return {"model": "ContRec", "users": users, "items": 10, "interactions": 20 * users, "stages": stages}

    result = {"machine": {"cpu": "A CPU", "load_at_start": 1, "versions": {"torch": "2"}, "commit": None}}
    result["settings"] = vars(scale.parse([]))
    result["points"] = [point(10**4, 36.0), point(10**5, 360.0)]
    text = summary(result)
    assert "**Computed, not measured**: 100,000,000 interactions of 5 million users with 10 items" in text
    assert "| reading | 5 | 17.7 |" in text and "\n| epoch | " not in text
    assert "| users (items: 10) | seconds | 1.00 |" in text
    result["points"][1] = point(10**5, 360.0, over="memory")
    assert "Computed" not in summary(result)


def test_zipf_histories_and_their_files(tmp_path):
    histories = zipf_histories(5000, 100, seed=1, median=12, spread=0.8)
    lengths = np.diff(histories.offsets)
    assert lengths.min() >= 5 and 11 <= np.median(lengths) <= 13 and histories.items.dtype == np.int32
    counts = np.sort(np.bincount(histories.items, minlength=101)[1:])[::-1]
    assert histories.items.min() >= 1 and len(counts) == 100
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)  # Zipf's law
    assert (zipf_histories(5000, 100, seed=1, median=12, spread=0.8).items == histories.items).all()
    write_atomic_files(tmp_path, "made", histories, 100)
    assert len((tmp_path / "made" / "made.item").read_text().splitlines()) == 101
