"""YAML files and modules of users: read as YAML promises, or one line that names file and line."""

import sys
from pathlib import Path

import pytest
import yaml

from recbole_contrec.errors import UserError
from recbole_contrec.settings.classes import load_class
from recbole_contrec.settings.schema import read_settings, read_yaml
from recbole_contrec.settings.yaml_file import MAX_DEPTH, read


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def refusal(path, reader=read_yaml):
    with pytest.raises(UserError) as caught:
        reader(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600 and str(path) in message
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize(
    "text, values",
    [
        ("base: &base\n  width: 3\n  depth: 1\n<<: *base\ndepth: 2\n", {"width": 3, "depth": 2}),
        ("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\n<<: [*a, *b]\n", {"x": 1, "y": 1, "z": 2}),
        ("a: &a {x: 1}\nb: &b\n  <<: *a\n  y: 2\n<<: *b\n", {"a": {"x": 1}, "x": 1, "y": 2}),
        (
            "one: &e {split: {RS: [1, 2]}, mode: full}\ntwo: {<<: *e, mode: pop100}\n",
            {"one": {"split": {"RS": [1, 2]}, "mode": "full"}, "two": {"split": {"RS": [1, 2]}, "mode": "pop100"}},
        ),
        ("topk: &k [5, 10]\nother: *k\n", {"topk": [5, 10], "other": [5, 10]}),
        (
            "n: 0x1F\nm: 1_000\nx: 1e-3\nt: yes\nq: '12:30'\nz: 0\nf: 00.5\n",
            {"n": 31, "m": 1000, "x": 1e-3, "t": True, "q": "12:30", "z": 0, "f": 0.5},
        ),
        ("text: |\n  two\n  lines\nfolded: >-\n  one\n  line\n", {"text": "two\nlines\n", "folded": "one line"}),
        ("? a\n: 1\n", {"a": 1}),
        ("", {}),
        ("---\n...\n", {}),
        ("# nothing\n", {}),
        ("~\n", {}),
        ("%YAML 1.1\n---\na: 1\n", {"a": 1}),
    ],
)
def test_yaml_keeps_its_promises(tmp_path, text, values):
    assert read_yaml(write(tmp_path / "a.yaml", text)) == values
    assert {key: setting.default for key, setting in read_settings(tmp_path / "a.yaml").items()} == values


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    assert read_yaml(write(tmp_path / "a.yaml", "titel: Käse\n", encoding)) == {"titel": "Käse"}


def test_comments_belong_to_their_line_with_aliases_and_merged_lines(tmp_path):
    settings = read_settings(
        write(
            tmp_path / "a.yaml",
            (
                "base: &base\n  width: 3    # (int; >= 1) Width.\n  rate: &rate 0.5\n"
                "<<: *base\ndropout: *rate    # (float; 0..<1) Dropout.\nflow: &flow {x: 1}  # (dict) A dictionary.\n"
            ),
        )
    )
    assert settings["width"].meaning == "Width." and not settings["width"].accepts(0)
    assert settings["dropout"].meaning == "Dropout." and not settings["dropout"].accepts(1.0)
    assert settings["flow"].types == ("dict",) and "base" not in settings


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a stands there twice, first in line 1"),
        ("a:\n  b: {c: 1, c: 2}\n", 2, "c stands there twice"),
        ("a: &a {x: 1}\nb: &b {x: 2}\n<<: *a\n<<: *b\n", 4, "<< stands there twice"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a:\n\t- 1\n", 2, "'\\t'"),
        ("a: 1\n---\nb: 2\n", 2, "but found another document"),
        ("a: *none\n", 1, "undefined alias"),
        ("5: 1\n", 1, "the key '5' is no text"),
        ("a: {no: 1}\n", 1, "the key 'no' is no text: write it in quotes"),
        ("? [1, 2]\n: 1\n", 1, "the key a list or mapping is no text"),
        ("a: {{}: 1}\n", 1, "is no text"),
        ("a: 1\nb: 12:30:45\n", 2, "base sixty"),
        ("a: [1, 1:30.5]\n", 1, "base sixty"),
        ("a: 010\n", 1, "octal number 8"),
        ("a: 1\nb: 2020-01-01\n", 2, "a date is no plain value"),
        ("a: !!set {x, y}\n", 1, "a set"),
        ("a: !!binary aGVsbG8=\n", 1, "bytes"),
        ("a: !Own 5\n", 1, "the tag !Own"),
        ("a: =\n", 1, "tag:yaml.org,2002:value"),
        ("a: &a [1, *a]\n", 1, "a value that holds itself"),
        ("a: {<<: 5}\n", 1, "merging"),
        ("a: 1\nb: \x07\n", 2, "the character 0x7"),
        ("a: 'x\n", 2, "found unexpected end of stream"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: !!python/object/apply:os.system ['touch executed']\n", 1, "python/object/apply:os.system"),
        ("a: !!int x\n", 1, "'x' cannot be read as a whole number"),
        ("b: 1\na: [!!bool x]\n", 2, "cannot be read as True or False"),
        ("a: !!float x\n", 1, "as a number"),
        ("a: 0x_\n", 1, "'0x_' cannot be read"),
        (f"a: {'9' * 5000}\n", 1, "cannot be read"),
        ("#" * 1_000_001, None, "is larger than 1,000,000 bytes"),
        ('a: "\\U7fffffff"\n', None, "cannot read"),
        ("- a\n", None, "key: value"),
        ("5\n", None, "key: value"),
        ("a: " + "[" * 5000, None, "levels deep"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 1, "levels deep"),
        (b"a: \xff\n", None, "not UTF-8 text"),
        (b"\x00\x00\xfe\xff", None, "FILE"),
    ],
)
def test_what_is_refused_names_the_line(tmp_path, monkeypatch, text, line, words):
    monkeypatch.chdir(tmp_path)
    message = refusal(write(tmp_path / "a.yaml", text))
    assert words in message and (line is None or f"FILE, line {line}: " in message)
    assert not Path("executed").exists()


@pytest.mark.parametrize("by", ["aliases", "merges"])
def test_a_billion_laughs_are_refused_at_once(tmp_path, by):
    lines = ["a0: &a0 {x0: lol}" if by == "merges" else "a0: &a0 [lol]"]
    for level in range(1, 12):
        many = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(
            f"a{level}: &a{level} {{<<: [{many}], x{level}: 1}}" if by == "merges" else f"a{level}: &a{level} [{many}]"
        )
    assert "aliases stand for more than 100,000 values" in refusal(write(tmp_path / "a.yaml", "\n".join(lines)))


def test_folders_and_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    assert "Is a directory" in refusal(tmp_path / "a.yaml")
    assert "there is no file" in refusal(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="null"):
        read_yaml(tmp_path / "a\0b.yaml")
    with pytest.raises(UserError, match="too long"):
        read_yaml(tmp_path / ("x" * 300))


def test_it_reads_what_safe_load_reads(tmp_path):
    from recbole_contrec.catalogue.places import package_properties

    files = list(package_properties().rglob("*.yaml"))
    assert len(files) > 20
    for path in files:
        ours, theirs = read(path).value or {}, yaml.safe_load(path.read_text()) or {}
        assert {**theirs, **{key: value for key, value in ours.items() if isinstance(theirs[key], str)}} == ours


# modules of users

BROKEN = {  # body -> what the error must say; {line} is that of the module
    "x = 1\nraise RuntimeError('no luck')": "RuntimeError: no luck (FILE, line 2)",
    "raise RuntimeError('two\\nlines' + 'x' * 5000)": "RuntimeError: two linesxxx",
    "import sys\n\nsys.exit(3)": "SystemExit: 3 (FILE, line 3)",
    "quit()": "SystemExit",
    "raise SystemExit": "SystemExit (FILE, line 1)",
    "def f(:\n    pass": "is not valid Python: FILE, line 1",
    "x = '\0'": "not valid Python",
    "import nothing_of_this_name": "needs nothing_of_this_name, which is not installed (FILE, line 1)",
    "from json import nothing": "ImportError: cannot import name 'nothing' from 'json'",
    "1 / 0": "ZeroDivisionError",
    "from {name} import M": "ImportError: cannot import name 'M'",
    "def f(): f()\nf()": "RecursionError",
    "class E(BaseException):\n    def __str__(self): raise ValueError\nraise E": "E (FILE, line 3)",
    "raise GeneratorExit": "GeneratorExit",
    "print('hello')": "has no class M",
    "": "has no class M",
    "M = 5": "is not a RecBole recommender",
    "class M: pass": "is not a RecBole recommender",
    "def M(): pass": "is not a RecBole recommender",
    "import sys\nsys.modules[__name__] = 5": "has no class M",
    "def __getattr__(name): raise KeyError(name)": "KeyError: 'M'",
    "class T(type):\n    def __getattribute__(self, name): raise ValueError(name)\n"
    "class M(metaclass=T): pass": "ValueError: __mro__",
    "class T(type):\n    def __subclasscheck__(self, other): return True\n"
    "class M(metaclass=T): pass": "is not a RecBole recommender",
    "import os\nos.chdir('/nowhere')": "FileNotFoundError",
    "import sys\nsys.path = []\n1/0": "ZeroDivisionError",
    "raise OSError(2, 'x', 'f')": "FileNotFoundError: [Errno 2] x: 'f' (FILE, line 1)",
}


@pytest.mark.parametrize("number", range(len(BROKEN)), ids=lambda number: [*BROKEN][number][:30])
def test_whatever_a_module_does_is_one_line(tmp_path, monkeypatch, number):
    body, expected = list(BROKEN.items())[number]
    name = f"broken_module_{number}"
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / f"{name}.py", body.replace("{name}", name))
    with pytest.raises(UserError) as caught:
        load_class(f"{name}:M")
    message = str(caught.value)
    assert expected in message.replace(str(path), "FILE") and name in message
    assert "\n" not in message and len(message) < 700


@pytest.mark.parametrize("text", ["m", "m:", ":M", "..m:M", "m.:M", "a b:M", "m:M:N", "", None, 5, ["m:M"], "m:1"])
def test_names_of_another_form(text):
    with pytest.raises(UserError, match="must have the form package.module:Class"):
        load_class(text)


def test_an_interrupt_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "interrupted_module.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_class("interrupted_module:M")


def test_a_folder_in_the_place_of_a_yaml_file_is_not_passed_over(tmp_path):
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model, general_settings, list_models

    (tmp_path / "model" / "ContRec.yaml").mkdir(parents=True)
    folders = properties_folders(tmp_path)
    for path, call in (
        ("model/ContRec.yaml", lambda: find_model("ContRec", folders)),
        ("overall.yaml", lambda: general_settings(folders)),
    ):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        with pytest.raises(UserError, match=f"cannot read .*{path}: it is a folder"):
            call()
    assert "ContRec" in [model.name for model in list_models(folders)]


OWN = "from recbole.model.sequential_recommender.sasrec import SASRec\nclass M(SASRec):\n    def {}\n"


@pytest.mark.parametrize(
    "number, body, words",
    [
        (1, "__init__(self, config, dataset): raise KeyError('hm')", "KeyError: 'hm' (FILE, line 3)"),
        (2, "__init__(self, config): pass", "TypeError: "),
        (3, "calculate_loss(self, batch): raise SystemExit(0)", "SystemExit: 0 (FILE, line 3)"),
        (4, "calculate_loss(self, batch): return self.nothing", "'M' object has no attribute 'nothing' (FILE, line 3)"),
        (
            5,
            "full_sort_predict(self, batch): return super().full_sort_predict(batch)[:, :3]",
            "model MyRec: RuntimeError",
        ),
        (6, "full_sort_predict(self, batch): return super().full_sort_predict(batch) * float('nan')", None),
    ],
)
def test_what_a_users_model_does_later_is_one_line_too(run_tiny, workplace, number, body, words):
    (workplace / "properties" / "model").mkdir(parents=True)
    write(workplace / "properties" / "model" / "MyRec.yaml", f"extends: SASRec\nmodel_class: own_model_{number}:M\n")
    path = write(workplace / f"own_model_{number}.py", OWN.format(body))
    if words is None:  # as of any model that diverges
        with pytest.raises(FloatingPointError, match="MyRec scores no item"):
            run_tiny("MyRec", "--epochs=1")
        return
    with pytest.raises(UserError) as caught:
        run_tiny("MyRec", "--epochs=1")
    message = str(caught.value)
    assert message.startswith("model MyRec: ") and words in message.replace(str(path), "FILE") and "\n" not in message


def test_classes_that_do_not_go_together_are_one_line(run_tiny, workplace):
    (workplace / "properties" / "model").mkdir(parents=True)
    write(
        workplace / "properties" / "model" / "MyRec.yaml",
        "extends: SASRec\ndataset_class: recbole.data.dataset:Dataset\n",
    )
    with pytest.raises(UserError, match="model MyRec: KeyError: 'item_id_list'"):
        run_tiny("MyRec", "--epochs=1")
