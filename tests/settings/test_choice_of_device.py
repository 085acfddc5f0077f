"""On which device a run computes, and that it never falls back to another without a word."""

import logging
import os
from pathlib import Path

import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.settings import devices


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "untouched")


def chosen(given, final=None):
    final = {"gpu_id": "0", "use_gpu": True, **(final or {}), **given}
    devices.choose_device(final, given)
    return final


@pytest.mark.parametrize(
    "gpu, available, visible, device",
    [
        ("1", True, "1", "cuda"),
        (2, True, "2", "cuda"),
        ([3], True, "3", "cuda"),
        ("GPU-8f2a", True, "GPU-8f2a", "cuda"),
        ("", True, "untouched", "cpu"),
        ("4", False, "4", "cpu"),
    ],
)
def test_one_gpu_or_the_cpu(monkeypatch, gpu, available, visible, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    final = chosen({"gpu_id": gpu})
    assert final["device"] == torch.device(device) and os.environ[devices.VISIBLE] == visible
    assert chosen({"use_gpu": False})["device"] == torch.device("cpu")


@pytest.mark.parametrize(
    "gpu, text",
    [("0,1", "names 2 GPUs"), ([0, 1], "names 2 GPUs"), ("cuda:1", "must be the number"), (-1, "must be the number")],
)
def test_what_is_no_single_gpu_is_refused(gpu, text):
    with pytest.raises(UserError, match=text):
        chosen({"gpu_id": gpu})


@pytest.mark.parametrize("given", [{"gpu_id": "7"}, {"use_gpu": True}])
def test_a_gpu_that_is_asked_for_and_not_there_is_told_of(monkeypatch, caplog, given):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING, logger="recbole_contrec"):
        chosen({})
        assert not caplog.text
        chosen(given)
    assert "computes on the CPU" in caplog.text


def test_the_shell_says_which_gpu_where_nobody_else_does(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_OF_THE_SHELL", "5")
    chosen({})
    assert os.environ[devices.VISIBLE] == "5"
    chosen({"gpu_id": "1"})
    assert os.environ[devices.VISIBLE] == "1"


def test_a_process_stays_on_its_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setenv(devices.VISIBLE, "0")
    assert chosen({"gpu_id": "0"})["device"].type == "cuda"
    with pytest.raises(UserError, match="already computes on GPU 0"):
        chosen({"gpu_id": "1"})


@pytest.mark.parametrize("again", ["load", "resume"])
def test_a_checkpoint_asks_for_no_gpu_that_nobody_asked_for(again, run_tiny, monkeypatch, caplog):
    """The shell's choice of a GPU stays, and a machine without one is nothing to complain of."""
    from recbole_contrec import load_data_and_model
    from recbole_contrec.reloading import config_to_resume

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = Path(run_tiny("ContRec", "--use_gpu=True")["checkpoint"]).parent
    monkeypatch.setattr(devices, "_OF_THE_SHELL", "3")
    monkeypatch.setenv(devices.VISIBLE, "3")
    caplog.clear()
    if again == "load":
        config = load_data_and_model(folder).config
    else:
        config = config_to_resume(str(folder), None, None, None, (), (), None)
    assert os.environ[devices.VISIBLE] == "3"
    assert "no such GPU" not in caplog.text and config["use_gpu"] is True
