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
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


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
