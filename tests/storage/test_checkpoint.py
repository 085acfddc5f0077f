"""Checkpoints are whole or absent, hold no code, and bring back exactly what went in."""

import errno
import pickle
import random

import numpy as np
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint


def test_round_trip_with_shared_and_strided_tensors(tmp_path):
    shared = torch.randn(4, 3)
    tensors = {"model.a": shared, "model.b": shared, "model.c": shared.T, "loader": torch.arange(3)}
    checkpoint.save(tmp_path / "x.safetensors", tensors, {"epoch": 3, "names": ["ü", "b"]})
    loaded = checkpoint.load(tmp_path / "x.safetensors")
    assert loaded.record["epoch"] == 3 and loaded.record["names"] == ["ü", "b"]
    for name, tensor in tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
    assert set(loaded.part("model")) == {"a", "b", "c"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", pickle.dumps({"state_dict": {}})])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint of recbole_contrec, or it is damaged"):
        checkpoint.load(path)


def test_truncated_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.randn(1000)}, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "y.safetensors")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="not a checkpoint of recbole_contrec"):
        checkpoint.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("other", [1, 99])
def test_another_format_is_refused(tmp_path, monkeypatch, other):
    monkeypatch.setattr(checkpoint, "FORMAT", other)
    checkpoint.save(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {})
    monkeypatch.undo()
    with pytest.raises(UserError, match=f"format {other}, this version reads 2: train the model again"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)}, {})

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="no space left.*--checkpoint_dir"):
        checkpoint.save(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(checkpoint.load(path).tensors["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("links", [True, False])
def test_a_kept_checkpoint_is_whole_or_an_error_that_leaves_nothing(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(checkpoint.os, "link", no_links)
    checkpoint.save(tmp_path / "best", {"x": torch.ones(3)}, {"epoch": 1})
    checkpoint.keep(tmp_path / "best", tmp_path / "before")
    checkpoint.save(tmp_path / "best", {"x": torch.ones(3)}, {"epoch": 2})
    assert [checkpoint.load(tmp_path / name).record["epoch"] for name in ("before", "best")] == [1, 2]
    checkpoint.keep(tmp_path / "best", tmp_path / "before")
    assert checkpoint.load(tmp_path / "before").record["epoch"] == 2
    checkpoint.keep(tmp_path / "nowhere", tmp_path / "other")

    def half(source, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "link", no_links)
    monkeypatch.setattr(checkpoint.shutil, "copyfile", half)
    with pytest.raises(UserError, match="no space left on the device"):
        checkpoint.keep(tmp_path / "best", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_beside_it_appears_when_it_is_complete(tmp_path):
    def writer(text, error=None):
        def write(folder):
            (folder / f"{text}.txt").write_text(text)
            if error is not None:
                raise error

        return write

    for text in ("first", "second"):  # what is there is replaced
        checkpoint.save_folder(tmp_path / "run" / "adapter", writer(text))
    with pytest.raises(UserError, match="no space left.*--checkpoint_dir"):
        checkpoint.save_folder(
            tmp_path / "run" / "adapter", writer("third", OSError(errno.ENOSPC, "No space left on device"))
        )
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        checkpoint.save_folder(tmp_path / "run" / "adapter", writer("third", ZeroDivisionError()))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["run/adapter/second.txt"]


def test_optimizer_state_survives(tmp_path):
    def trained(steps, optimizer, weight):
        for _ in range(steps):
            optimizer.zero_grad()
            (weight * torch.arange(1.0, 4.0)).square().sum().backward()
            optimizer.step()

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    trained(2, optimizer, weight)
    tensors, record = checkpoint.pack_optimizer(optimizer)
    checkpoint.save(tmp_path / "x.safetensors", tensors, record)
    loaded = checkpoint.load(tmp_path / "x.safetensors")

    twin = torch.nn.Parameter(weight.detach().clone())
    other = torch.optim.AdamW([twin], lr=0.5)
    loaded.record["groups"][0]["amsgrad"] = True  # it would look for a moment that is not there
    with pytest.raises(ValueError, match="another amsgrad"):
        checkpoint.unpack_optimizer(other, loaded.tensors, loaded.record)
    loaded.record["groups"][0]["amsgrad"] = False
    checkpoint.unpack_optimizer(other, loaded.tensors, loaded.record)
    trained(2, optimizer, weight)
    trained(2, other, twin)
    assert torch.equal(weight, twin)


def test_random_state_survives(tmp_path):
    random.gauss(0, 1), np.random.randn(), torch.randn(1)
    tensors, record = checkpoint.pack_random_state()
    checkpoint.save(tmp_path / "x.safetensors", tensors, record)
    wanted = random.random(), random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist()
    loaded = checkpoint.load(tmp_path / "x.safetensors")
    checkpoint.unpack_random_state(loaded.tensors, loaded.record)
    assert wanted == (random.random(), random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist())


def test_a_file_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(3)}, {"epoch": 1})
    opened = []

    class ReplacedOnce:
        """A file whose header is read before another process replaces it, and whose tensors are read behind that."""

        def __init__(self, *args, **options):
            opened.append(self)
            self.file = safe_open(*args, **options)
            self.header = self.file.metadata()
            if len(opened) == 1:
                checkpoint.save(path, {"a": torch.ones(3)}, {"epoch": 2})
                self.file = safe_open(*args, **options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def metadata(self):
            return self.header

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            return self.file.get_tensor(name)

    safe_open = checkpoint.safe_open
    monkeypatch.setattr(checkpoint, "safe_open", ReplacedOnce)
    loaded = checkpoint.load(path)
    assert len(opened) == 2 and loaded.record["epoch"] == 2 and torch.equal(loaded.tensors["a"], torch.ones(3))
