"""Random damage to checkpoints: an error of one line and nothing loaded, or a model that is exactly what the file
holds."""

import json
import math
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from recbole_contrec.training.identity import load_weights
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY, TINY_CONTREC

SEEDS = range(*map(int, os.environ.get("FUZZ_SEEDS", "0 30").split()))  # more of them: FUZZ_SEEDS="0 5000" pytest ...

WRONG = [
    None,
    True,
    0,
    -1,
    3.5,
    2**70,
    "",
    "x",
    "../../etc/passwd",
    "\ud800",
    [],
    {},
    [1, "a"],
    {"a": 1},
    [[[]]],
    "__import__('os')",
    -7,
    1e300,
    ["x"] * 50,
    {"numpy": False},
    {"sparse": "csr", "shape": [2, 2]},
    {"value": 5},
]


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat, overwrite or enlarge; the header as often as what is behind it."""
    content = bytearray(content)
    end = len(content) if draw.random() < 0.5 else min(len(content), 8 + struct.unpack("<Q", content[:8])[0])
    start, size = draw.randrange(end), draw.choice([1, 1, 4, 50, 5000])
    kind = draw.randrange(6)
    if kind == 0:
        content[start] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[start:]
    elif kind == 2:
        del content[start : start + size]
    elif kind == 3:
        content[start:start] = content[start : start + size]
    elif kind == 4:
        content[start : start + size] = draw.randbytes(size)
    else:
        content[:8] = struct.pack("<Q", draw.choice([0, 1, 2**40, 2**63, len(content), len(content) - 8]))
    return bytes(content)


def damage_record(record, draw: random.Random):
    """Change one value, key or part of a JSON value, however deep."""
    node = record
    while isinstance(node, (dict, list)) and node:
        key = draw.choice(sorted(node) if isinstance(node, dict) else range(len(node)))
        if draw.random() < 0.4 or not isinstance(node[key], (dict, list)) or not node[key]:
            kind = draw.randrange(4)
            if kind == 0:
                del node[key]
            elif kind == 1 and isinstance(node, dict):
                node[key + draw.choice(["x", ".", ""])] = node.pop(key)
                node[draw.choice(["0", "forward", "eval", "model_class", "properties"])] = draw.choice(WRONG)
            else:
                node[key] = draw.choice([*WRONG, math.nan, math.inf])
            return record
        node = node[key]
    return draw.choice(WRONG)


def damage_tensors(tensors: dict, draw: random.Random) -> dict:
    """Remove, rename, add, reshape, convert or spoil one tensor."""
    name = draw.choice(sorted(tensors))
    tensor = tensors.pop(name)
    kind = draw.randrange(8)
    if kind == 1:
        tensors[
            draw.choice(
                [
                    name + "x",
                    name.replace("model.", "other."),
                    "model",
                    "other.forward",
                    "random.torch",
                    "items",
                    "..",
                    "",
                ]
            )
        ] = tensor
    elif kind == 2:
        tensors[name] = tensor.reshape(-1)[: draw.randrange(tensor.numel() + 1)].contiguous()
    elif kind == 3:
        tensors[name] = tensor.to(
            draw.choice([torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.bfloat16])
        )
    elif kind == 4:
        tensors[name] = tensor.clone()
        if tensor.numel():
            flat = tensors[name].reshape(-1)
            flat[draw.randrange(len(flat))] = draw.choice([math.nan, math.inf]) if tensor.is_floating_point() else 1
    elif kind == 5:
        tensors[name] = tensor[None].contiguous()
    elif kind == 6:
        tensors[name] = torch.randn(draw.choice([0, 1, 7]), 3)
    elif kind == 7:
        tensors.update({name: tensor, f"{name}.{draw.randrange(9)}": tensor.clone()})
    return tensors


def damaged(path: Path, target: Path, draw: random.Random) -> None:
    """A damaged copy; where it is the content, with a checksum that is right, with none, or with that of before."""
    if draw.random() < 0.3:
        target.write_bytes(damage_bytes(path.read_bytes(), draw))
        return
    tensors, record = checkpoint.load(path)
    with_checksum = draw.random() < 0.7
    text = checkpoint.with_checksum(tensors, record)
    if draw.random() < 0.6:
        record = damage_record(record, draw)
    else:
        tensors = damage_tensors(tensors, draw)
    if draw.random() < 0.8:
        text = json.dumps(record)
        if with_checksum and isinstance(record, dict) and "NaN" not in text and "Infinity" not in text:
            text = checkpoint.with_checksum(tensors, record)
    elif draw.random() < 0.5:  # the text and the checksum of before, or damage to the text itself
        text = draw.choice([text[: draw.randrange(len(text))], "[" * 20000, text.replace("0", "9" * 5000, 1)])
    save_file(tensors, target, metadata={"recbole_contrec": text.encode("utf-8", "replace").decode()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of one epoch in a working folder: saved/one (ContRec) and saved/two (SASRec)."""
    from recbole_contrec import run

    folder = tmp_path_factory.mktemp("fuzz")
    write_atomic_files(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, model, tiny in (("one", "ContRec", [*TINY_CONTREC, "--ema_decay=0.9"]), ("two", "SASRec", TINY)):
            run(model, "tiny", arguments=[*tiny[1:], "--epochs=1", "--data_path=data", f"--run_name={name}"])
        yield folder


def state_of(trainer):
    """Everything that a checkpoint may change."""
    optimizer = trainer.optimizer.state_dict()
    return {
        **{f"model.{name}": tensor.clone() for name, tensor in trainer.model.state_dict().items()},
        **{
            f"optimizer.{number}.{name}": torch.as_tensor(value).clone()
            for number, fields in optimizer["state"].items()
            for name, value in fields.items()
        },
        **{
            f"average.{name}": tensor.clone()
            for name, tensor in (trainer.average.average if trainer.average else {}).items()
        },
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64)),
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def trainers(trained):
    """A trainer a run, for which its checkpoints are tried."""
    from recbole_contrec.quick_start import load_data_and_model

    return {name: load_data_and_model(f"saved/{name}").trainer for name in ("one", "two")}


def refusal(error):
    text = str(error)
    assert "\n" not in text.strip() and len(text) < 1600
    return text


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_checkpoints_are_refused_and_nothing_is_loaded(trained, trainers, tmp_path, seed):
    draw = random.Random(seed)
    name = draw.choice(["one", "two"])
    trainer = trainers[name]
    for part in ("best", "last"):
        folder = tmp_path / part
        folder.mkdir()
        (folder / "best.safetensors").write_bytes(Path(f"saved/{name}/best.safetensors").read_bytes())
        damaged(Path(f"saved/{name}/{part}.safetensors"), folder / f"{part}.safetensors", draw)
        before = state_of(trainer)
        try:
            if part == "best":
                load_weights(trainer.model, folder / "best.safetensors", trainer.config["model"], trainer.identity)
            else:
                trainer.resume_checkpoint(folder)
        except UserError as error:
            refusal(error)
            assert same(state_of(trainer), before)
        else:
            held = checkpoint.load(folder / f"{part}.safetensors").part("model")
            ours = trainer.model.state_dict()
            # Files of earlier versions lack a part's state of its own.
            assert held.keys() <= ours.keys() and all(key.endswith("_extra_state") for key in ours.keys() - held.keys())
            for key, tensor in held.items():
                assert torch.equal(tensor.to(ours[key].dtype), ours[key]) and not tensor.isnan().any()


@pytest.mark.parametrize("seed", SEEDS[::5])
def test_commands_end_with_a_line(trained, tmp_path, capsys, seed):
    from recbole_contrec.cli import main

    draw = random.Random(1000 + seed)
    path = tmp_path / "best.safetensors"
    damaged(Path("saved/two/best.safetensors"), path, draw)
    before = {file.name for file in Path().iterdir()}
    capsys.readouterr()
    code, error = main(["recommend", f"--checkpoint={path}", "--users=u3", "--k=3"]), capsys.readouterr().err
    assert code in (0, 2) and (
        code == 0 or len(error) < 1700 and error.startswith("error: ") and error.count("\n") <= 2
    )
    assert {file.name for file in Path().iterdir()} == before
