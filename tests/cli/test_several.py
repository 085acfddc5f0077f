"""``--nproc`` and its kin start what ``torchrun`` starts, with the rest of the command line."""

import signal

import pytest
import torch.distributed.run

from recbole_contrec.cli import main

RUN = ["--model=SASRec", "--dataset=tiny", "--epochs=2"]


@pytest.fixture
def started(monkeypatch):
    """Command lines of torchrun, which is not run."""
    found = []
    monkeypatch.setattr(torch.distributed.run, "main", found.append)
    return found


def test_processes_of_one_machine(started):
    assert main(["--nproc=2", *RUN]) == 0
    assert started == [["--nproc_per_node=2", "--standalone", "-m", "recbole_contrec", *RUN]]


def test_processes_of_several_machines_as_recbole_counts_them(started):
    assert main([*RUN, "--nproc=2", "--world_size=6", "--group_offset=4", "--ip=10.0.0.1", "--port=99"]) == 0
    place = ["--nnodes=3", "--node_rank=2", "--master_addr=10.0.0.1", "--master_port=99"]
    assert started == [["--nproc_per_node=2", *place, "-m", "recbole_contrec", *RUN]]


def test_the_error_of_a_process_is_not_told_again(monkeypatch, capsys):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def fails(arguments):
        raise ChildFailedError("recbole_contrec", {0: ProcessFailure(0, 1, 2, "none")})

    monkeypatch.setattr(torch.distributed.run, "main", fails)
    assert main(["--nproc=2", *RUN]) == 2
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    from torch.distributed.elastic.multiprocessing.api import SignalException

    def interrupted(arguments):
        raise SignalException("stopped", signal.SIGINT)

    monkeypatch.setattr(torch.distributed.run, "main", interrupted)
    assert main(["--nproc=2", *RUN]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_processes_start_no_processes(started, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert main(["--nproc=2", *RUN]) == 2
    assert "torchrun has started this process already" in capsys.readouterr().err and not started


@pytest.mark.parametrize(
    "numbers",
    [
        ["--nproc=2", "--world_size=3"],
        ["--nproc=2", "--world_size=1"],
        ["--nproc=2", "--world_size=4", "--group_offset=1"],
        ["--nproc=2", "--world_size=4", "--group_offset=4"],
    ],
)
def test_numbers_that_do_not_go_together(started, capsys, numbers):
    assert main([*RUN, *numbers]) == 2
    assert "every machine starts nproc processes" in capsys.readouterr().err and not started
