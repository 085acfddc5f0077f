"""What every command over several runs does alike: one run after another, and a report in the end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.lib import runs
from benchmarks.lib.running import conclude, one_by_one
from tests.helpers.files import ROOT

CHILD = """
import os, time
from benchmarks.lib.runs import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(0.3 if {ends} else 300)
"""
PARENT = """
import os, sys
from pathlib import Path
from benchmarks.lib.runs import follow
print(*follow([sys.executable, "-c", sys.argv[1]], Path(), dict(os.environ), print))
"""


def follows(child, folder):
    program = [sys.executable, "-c", PARENT, child]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(program, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def lives(process):
    """A zombie, whom nobody in a container waits for, does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for a process there")
def test_a_run_ends_with_the_command_that_started_it(tmp_path):
    parent, output = follows(CHILD.format(ends=0), tmp_path), tmp_path / "output.txt"
    deadline = time.monotonic() + 100
    while not (output.exists() and output.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(output.read_text())
    assert lives(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(child)


def test_a_run_that_ends_by_itself_ends_well(tmp_path):
    said, _ = follows(CHILD.format(ends=1), tmp_path).communicate()
    assert said.startswith("0 ")


def test_runs_are_started_to_end_with_their_command(tmp_path, monkeypatch):
    commands = []

    def follow(command, *_):
        commands.append(command)
        return 1, "it failed"

    monkeypatch.setattr(runs, "follow", follow)
    with pytest.raises(RuntimeError, match="it failed"):
        runs.execute(runs.Run("Pop", "ml-100k", 2020, tmp_path))
    assert commands[0].index("--with-parent") < commands[0].index("--")


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
