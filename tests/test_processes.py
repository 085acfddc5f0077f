"""The module of processes in one process, and how it deals out a batch."""

import numpy as np
import pytest
import torch

from recbole_contrec import processes
from recbole_contrec.errors import UserError
from recbole_contrec.training.shares import check_shares, own_users


@pytest.fixture
def process_of(monkeypatch):
    """A function (rank, size) that makes this process one of several, without a group."""

    def become(rank, size):
        monkeypatch.setattr(processes, "_together", True)
        monkeypatch.setattr(processes.dist, "get_rank", lambda: rank)
        monkeypatch.setattr(processes.dist, "get_world_size", lambda: size)
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(size))

    return become


@pytest.mark.parametrize("missing", ("WORLD_SIZE", "RANK", "MASTER_ADDR"))
def test_without_torchrun_nothing_is_started_and_nothing_drawn(monkeypatch, missing):
    environment = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}
    for name in environment.keys() - {missing}:
        monkeypatch.setenv(name, environment[name])
    monkeypatch.delenv(missing, raising=False)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with processes.together(), processes.first_goes_first():
        processes.draw_apart(1)
        assert processes.size() == 1 and processes.is_first() and not processes.dist.is_initialized()
        assert processes.from_first(lambda: 7) == 7 and processes.summed([0.1]) == [0.1]
        assert processes.own_gpu("0,1") == "0,1"
        assert processes.own_share(torch.tensor([1, 3, 2])).tolist() == [0, 1, 2]
        assert processes.gathered(np.array([1, 0]), np.array([5, 6]))[0].tolist() == [5, 6]
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("size", (2, 3, 5))
@pytest.mark.parametrize("rows", (1, 4, 100))
def test_rows_are_dealt_out_once_and_evenly(process_of, size, rows):
    costs = torch.randint(1, 200, (rows,))
    shares = []
    for rank in range(size):
        process_of(rank, size)
        shares.append(processes.own_share(costs))
        assert shares[-1].equal(shares[-1].sort().values)
    assert torch.cat(shares).sort().values.tolist() == list(range(rows))
    sums = [int(costs[share].sum()) for share in shares]
    assert max(sums) - min(sums) <= int(costs.max())


def test_every_process_gets_a_gpu_of_its_own(process_of):
    process_of(1, 2)
    assert processes.own_gpu("0,1") == "1" and processes.own_gpu("0") == "1" and processes.own_gpu("4") == "5"
    assert processes.own_gpu("GPU-a,GPU-b,GPU-c") == "GPU-b"
    assert processes.own_gpu("") == "" and processes.own_gpu("-1") == "-1"  # hidden: on the CPU
    process_of(2, 3)
    with pytest.raises(UserError, match="2 GPUs .* for 3 processes"):
        processes.own_gpu("0,1")
    with pytest.raises(UserError, match="1 GPUs .* for 3 processes"):
        processes.own_gpu("2", may_be_more=False)  # as the shell names it: the others are somebody else's


def test_fewer_gpus_than_processes_are_refused(process_of, monkeypatch):
    """Else some would compute on the CPU, and wait for those on a GPU."""
    process_of(0, 2)
    monkeypatch.setattr(processes, "summed", lambda numbers: [float(sum(numbers))])
    with pytest.raises(UserError, match="1 of 2 processes have a GPU"):
        check_shares({"device": torch.device("cuda")}, None)


def test_parts_of_an_evaluation_batch_hold_what_is_about_their_users(process_of):
    from recbole.data.interaction import Interaction

    batch = Interaction({"user_id": torch.tensor([7, 8, 9])})
    history = torch.tensor([0, 0, 1, 2]), torch.tensor([4, 5, 4, 6])
    users, items = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 2, 3, 1])
    found = {}
    for rank in (0, 1):
        process_of(rank, 2)
        (interaction, seen, positive_u, positive_i), own = own_users((batch, history, users, items), "length")
        assert interaction["user_id"].tolist() == batch["user_id"][own].tolist()
        for row, item in zip(positive_u.tolist(), positive_i.tolist()):
            found.setdefault(int(own[row]), []).append(item)
        masked = [(int(own[row]), item) for row, item in zip(*map(torch.Tensor.tolist, seen))]
        assert masked == [pair for pair in zip(*map(torch.Tensor.tolist, history)) if pair[0] in own.tolist()]
    assert found == {0: [1], 1: [2, 3], 2: [1]}
