"""Random YAML files and command lines: settings that are read, or an error of one or two lines; never a traceback, and
nothing is executed."""

import os
import random
from pathlib import Path

import pytest
import yaml

from recbole_contrec.catalogue.places import package_properties, properties_folders
from recbole_contrec.cli import main
from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.registry import find_model
from recbole_contrec.settings.yaml_file import read

SEEDS = range(*map(int, os.environ.get("FUZZ_SEEDS", "0 20").split()))  # more of them: FUZZ_SEEDS="0 5000" pytest ...

PIECES = [
    "&a ",
    "*a",
    "<<: *a\n",
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/name:os.system",
    "!!set {a}",
    "!!int x",
    "!!binary x",
    "!own ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ":",
    "- ",
    "\n",
    "\t",
    "  ",
    "#",
    "'",
    '"',
    "|\n",
    ">\n",
    "? ",
    "%YAML 1.2\n",
    "---\n",
    "...\n",
    "\0",
    "\x07",
    "\ufeff",
    "\u2028",
    "\ud7ff",
    "ü",
    "é" * 300,
    "9" * 5000,
    "1e999",
    ".nan",
    "-.inf",
    "0x",
    "0o7",
    "010",
    "1:30",
    "1_0",
    "2020-01-01",
    "2020-01-01 10:00:00",
    "=",
    "<<",
    "yes",
    "null",
    "~",
    "@",
    "`",
    "{a: 1, a: 2}",
    "[" * 200,
    "{a: " * 60,
    "epochs: 3\n",
    "epochs: 4\n",
    "model_class: json:JSONDecoder\n",
    "model_class: antigravity_:X\n",
    "extends: ContRec\n",
    "extends: [1]\n",
    "extends: ~\n",
    "properties: x\n",
    "config_files: x.yaml\n",
    "5: 6\n",
    "? [a]\n: b\n",
    "topk: [5, [10]]\n",
    "x: &x [*x]\n",
]
VALUES = [
    "",
    "~",
    "None",
    "nan",
    "-inf",
    "1e999",
    "1e-400",
    "0",
    "-1",
    "1.5",
    "9" * 400,
    "9" * 5000,
    "True",
    "yes",
    "x",
    "'",
    '"',
    "[",
    "{",
    "[]",
    "{}",
    "[[[]]]",
    "[1,2",
    "{a: 1}",
    "{'a': [1]}",
    "(1,)",
    "[None]",
    "['x']",
    "[1e999]",
    "{1: 2}",
    "{[1]: 2}",
    "*a",
    "&a [*a]",
    "!!set {a}",
    "!!python/object/apply:os.system ['touch executed']",
    "__import__('os').system('touch executed')",
    "open('executed','w')",
    "lambda: 0",
    "[" * 300,
    "(" * 300,
    "-" * 3000 + "1",
    "1+1",
    "b'x'",
    "1j",
    "...",
    "\0",
    "\n",
    "\ud800",
    "é" * 300,
    "../..",
    "/dev/null",
    "x" * 5000,
    "=",
    "==",
    "--",
    "%s%n",
    "{'split': {'RS': 5}}",
    "{'split': 5}",
    "{'mode': []}",
    "{split: {LS: x}}",
    "[5,inf)",
    "0,1",
]


def damage(text: str, draw: random.Random) -> str:
    """A YAML file with some pieces in it, out of it or twice."""
    for _ in range(draw.randrange(1, 5)):
        start, kind = draw.randrange(len(text) + 1), draw.randrange(5)
        if kind < 2:
            text = text[:start] + draw.choice(PIECES) + text[start:]
        elif kind == 2:
            text = text[:start] + text[start + draw.choice([1, 3, 30]) :]
        elif kind == 3:
            text = text[:start] + text[max(start - draw.choice([5, 50]), 0) :]
        else:
            lines = text.splitlines(True) or [""]
            lines[draw.randrange(len(lines))] = draw.choice(PIECES) + draw.choice(["\n", ""])
            text = "".join(lines)
    return text


def one_line(error) -> str:
    text = str(error)
    assert text and text.count("\n") <= 1 and len(text) < 1600
    return text


@pytest.fixture
def place(tiny):
    """A working directory in which ``executed`` must not appear."""
    yield tiny
    assert not Path("executed").exists()


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_yaml_files(place, seed):
    draw = random.Random(seed)
    files = sorted(package_properties().rglob("*.yaml"))
    source = draw.choice(files)
    name = draw.choice(
        [
            "model/Mine.yaml",
            "model/ContRec.yaml",
            "model/SASRec.yaml",
            "overall.yaml",
            "dataset/tiny.yaml",
            "model/SASRec_on_tiny.yaml",
        ]
    )
    path = Path("mine", name)
    path.parent.mkdir(parents=True)
    content = damage(source.read_text(), draw).encode("utf-8", "surrogatepass")
    if draw.random() < 0.1:
        content = content[: draw.randrange(len(content) + 1)] + draw.randbytes(3)
    path.write_bytes(content)
    try:
        found = read(path)
    except UserError as error:
        assert str(path) in one_line(error)
    else:  # what is read is what plain YAML says, but for ~ written None, numbers like 1e-3 and holders of merged lines
        plain = yaml.safe_load(content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"))
        if isinstance(found.value, dict):
            assert set(found.value) <= set(plain)
            assert all(
                found.value[key] == plain[key]
                or isinstance(plain[key], str)
                or "None" in str(plain[key])
                or "e" in str(plain[key])
                for key in found.value
            )
    for call in (
        lambda: find_model(
            "Mine" if "Mine" in name else draw.choice(["ContRec", "SASRec"]), properties_folders("mine")
        ),
        lambda: Config("SASRec", "tiny", arguments=[f"--data_path={place}"], properties="mine"),
        lambda: Config("ContRec", "tiny", [path], arguments=[f"--data_path={place}"]),
    ):
        try:
            call()
        except UserError as error:
            one_line(error)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_command_lines(place, capsys, monkeypatch, seed):
    """Everything but the training itself."""
    import recbole_contrec.quick_start as quick_start

    monkeypatch.setattr(quick_start, "_train_and_test", lambda *_: {})
    draw = random.Random(seed)
    keys = sorted(
        {
            *find_model("ContRec", properties_folders()).settings,
            *Config("SASRec", "tiny", arguments=[f"--data_path={place}"]).settings,
        }
        - {"data_path"}
    )
    model = draw.choice(["ContRec", "SASRec", "SASRec", "LightGCN", draw.choice(VALUES)])
    arguments = {
        "model": model,
        "dataset": draw.choice(["tiny"] * 6 + VALUES),
        "data_path": str(place),
        "use_gpu": "False",
        **{draw.choice(keys): draw.choice(VALUES) for _ in range(draw.randrange(1, 3))},
    }
    words = [f"--{key}={value}" for key, value in arguments.items()]
    if draw.random() < 0.2:
        words.insert(
            draw.randrange(len(words)),
            draw.choice(
                [
                    *VALUES,
                    "--",
                    "--=",
                    "-x",
                    "--epochs",
                    "--settings",
                    "--list-models",
                    "--help=1",
                    "recommend",
                    "prepare",
                    "vectors",
                    "--debugx",
                ]
            ),
        )
    monkeypatch.setattr("recbole_contrec.data.prepare.prepare", lambda *_: pytest.fail("it downloads"))
    capsys.readouterr()
    code, said = main(words), capsys.readouterr().err
    assert code in (0, 2), words
    assert code == 0 or said.count("error: ") == 1 and len(said[said.index("error: ") :]) < 1700, words
    assert code == 0 or not any(Path(name).exists() for name in ("saved", "log", "log_tensorboard")), words
