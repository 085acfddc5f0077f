"""How runs of several processes end and go on: killed, failed, resumed in another number of processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from tests.distributed.test_training import both, still
from tests.helpers.files import ROOT
from tests.helpers.killing import DIED

EPOCHS = ("--epochs=3", "--run_name=run", "--train_batch_size=200")


def losses(folder):
    return [*checkpoint.load(folder / "last.safetensors").record["train_loss"].values()]


@contextmanager
def stopped_at_step(number):
    """As by Ctrl-C."""
    steps = []

    def count(*_):
        steps.append(1)
        if len(steps) == number:
            raise KeyboardInterrupt

    hook = register_optimizer_step_post_hook(count)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture
def uninterrupted(run_tiny, tiny):
    """Losses of a run in one process that nobody stops."""
    result = run_tiny("SASRecAll", *still("SASRecAll", tiny, *EPOCHS, "--run_name=whole"))
    return losses(Path(result["checkpoint"]).parent)


@pytest.mark.parametrize("rank, event", [(0, 8), (1, 3)])  # both the first one after epoch 0; one of them writes files
def test_one_that_dies_ends_the_other_and_the_run_goes_on_alone(
    together, tiny, workplace, run_tiny, uninterrupted, rank, event
):
    arguments = still("SASRecAll", tiny, *EPOCHS)
    found = together("run", workplace, "SASRecAll", arguments, None, (rank, event))
    assert found[rank][0] == DIED
    code, said, _ = found[1 - rank]
    assert code == 2 and "another process of this run has failed" in said and "Traceback" not in said
    state = checkpoint.load(workplace / "saved" / "run" / "last.safetensors")
    assert 0 <= state.record["epoch"] < 2
    run_tiny("SASRecAll", *arguments, resume="saved/run")
    assert losses(workplace / "saved" / "run") == pytest.approx(uninterrupted, rel=1e-4)


def test_a_run_of_one_process_goes_on_in_two(together, tiny, workplace, run_tiny, uninterrupted):
    arguments = still("SASRecAll", tiny, *EPOCHS)
    with stopped_at_step(3), pytest.raises(KeyboardInterrupt):
        run_tiny("SASRecAll", *arguments)
    result = both(together("run", workplace, "SASRecAll", arguments, "saved/run"))
    assert result["epochs"] == 3 and losses(workplace / "saved" / "run") == pytest.approx(uninterrupted, rel=1e-4)


def test_a_script_of_torchrun_may_hold_several_runs(workplace):
    """They share a group: a second one would read the addresses of the first in torchrun's store."""
    Path("script.py").write_text(
        "from torch import distributed\n"
        "from recbole_contrec import processes\n"
        "groups = []\n"
        "for number in range(2):\n"
        "    with processes.together(), processes.first_goes_first():\n"
        "        groups.append(distributed.group.WORLD)\n"
        "assert processes.size() == 1 and groups[0] is groups[1]\n"
        "groups.clear()\n"  # a group that outlives the interpreter's end may abort the process
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


DIES_ONCE = """
import os, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook
from recbole_contrec import run
steps = []
def count(*_):
    steps.append(1)
    if len(steps) == 3 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
register_optimizer_step_post_hook(count)
if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "1"):
    time.sleep(5)  # meanwhile the other one finds the address of the process that died
run("SASRecAll", "tiny", arguments=sys.argv[1:])
print("first epoch that was trained here:", "none" if not steps else 3 - len(steps) // 2)
"""


def restarting(arguments):
    """Two processes of torchrun, one of which dies in its second epoch; both are started again."""
    Path("script.py").write_text(DIES_ONCE)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max_restarts=1", "script.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, env=environment)


def test_torchrun_starts_a_failed_run_again_and_it_goes_on(tiny, workplace, uninterrupted):
    done = restarting(still("SASRecAll", tiny, *EPOCHS))
    assert done.returncode == 0, done.stderr
    assert "first epoch that was trained here: 1" in done.stdout
    assert losses(workplace / "saved" / "run") == pytest.approx(uninterrupted, rel=1e-4)


@pytest.mark.parametrize("older", [True, False])
def test_a_restart_does_not_go_on_with_a_run_of_before(tiny, workplace, run_tiny, monkeypatch, older):
    arguments = still("SASRecAll", tiny, *EPOCHS)
    run_tiny("SASRecAll", *arguments)
    last = workplace / "saved" / "run" / "last.safetensors"
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1" if older else "0")
    if older:  # than torchrun, here the parent of this process
        os.utime(last, (1, 1))
    before = last.stat().st_mtime_ns
    with pytest.raises(UserError, match="is there already"):
        run_tiny("SASRecAll", *arguments)
    assert last.stat().st_mtime_ns == before


def test_a_run_that_may_be_restarted_needs_a_name(tiny, workplace, run_tiny, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with pytest.raises(UserError, match="add --run_name"):
        run_tiny("SASRecAll", *still("SASRecAll", tiny, "--epochs=1"))
    assert not (workplace / "saved").exists()


def test_torchrun_starts_the_command_line_and_ends_all_where_one_is_killed(tiny, workplace):
    """As a user types it. The line of the error is there once, and what was saved can be resumed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [*still("SASRecAll", tiny, "--epochs=1000", "--run_name=run"), "--model=SASRecAll", "--dataset=tiny"]
    program = str(ROOT / "run_recbole_contrec.py")
    with open("output.txt", "w") as output:
        started = subprocess.Popen(
            [*command, program, *arguments],
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    state = workplace / "saved" / "run" / "last.safetensors"
    while not state.is_file():
        assert started.poll() is None, Path("output.txt").read_text()
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-P", str(started.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert started.wait(60) != 0
    assert checkpoint.load(state).record["epoch"] >= 0
