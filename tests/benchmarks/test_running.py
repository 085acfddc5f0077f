"""What every command over several runs does alike: one run after another, and a report in the end."""

import pytest

from benchmarks.lib.running import conclude, one_by_one


def test_runs_that_fail_are_told_and_the_others_done():
    done = []

    def execute(run, show):
        show(3, 0.25)
        if run == "second":
            raise RuntimeError("second failed")
        done.append(run)

    assert one_by_one(["first", "second", "third"], execute) == ["second failed"] and done == ["first", "third"]
    with pytest.raises(KeyError):  # a fault of ours is no run that failed
        one_by_one(["first"], lambda run, show: {}["nothing"])


def test_the_report_holds_what_is_there_and_failures_come_last(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    assert conclude(tmp_path, lambda: "table", draw=lambda: [picture]) == 0
    assert (tmp_path / "README.md").read_text() == "table" and str(picture) in capsys.readouterr().out
    assert conclude(tmp_path, lambda: "other table", ["a run failed"]) == 1
    said = capsys.readouterr()
    assert (tmp_path / "README.md").read_text() == "other table"
    assert "other table" in said.out and said.err == "a run failed\n"


def test_where_there_is_nothing_to_report_a_line_says_so(tmp_path, capsys):
    def report():
        raise ValueError("no finished run")

    assert conclude(tmp_path, report, ["a run failed"], draw=pytest.fail) == 1
    assert capsys.readouterr().err == "a run failed\nerror: no finished run\n" and not list(tmp_path.iterdir())
