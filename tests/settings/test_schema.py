"""Comments of YAML files as checks, and what is read of a file or a command line."""

import numpy as np
import pytest

from recbole_contrec.catalogue.places import recbole_properties
from recbole_contrec.settings.schema import Constraint, parse_arguments, parse_value, read_settings, read_yaml
from tests.helpers.toy import error_of, write

# settings: the comment is the check


def setting_of(tmp_path, line):
    [setting] = read_settings(write(tmp_path / "M.yaml", line)).values()
    return setting


@pytest.mark.parametrize(
    "line, good, bad",
    [
        ("a: 2  # (int; >= 1) x", [1, 5, np.int64(3)], [0, 1.5, "2", True, None, [1]]),
        ("a: 0.2  # (float; 0..<1) x", [0, 0.99, np.float32(0.5)], [1, -0.1, "0.5", False, float("nan")]),
        ("a: 0.2  # (float; 0..1)) x", [0.0], [1.0]),
        ("a: 0.2  # (float; 0..1) x", [0, 1], [1.01]),
        ("a: 1  # (float; > 0, <= 1) x", [0.1, 1], [0, 1.1]),
        ("a: True  # (bool) x", [False], [0, "True"]),
        ("a: x  # (str; one of: x, y) x", ["y"], ["z", 1]),
        ("a: ~  # (str or ~) x", [None, "s"], [1]),
        ("a: ~  # (int) x", [None, 2], ["s"]),
        ("a: [1]  # (int or list of int; >= 1) x", [3, [1, 2], (4,)], [[0], ["a"], [1.5], 0]),
        ("a: [x]  # (list of str) x", [[], ["b"]], ["b", [1]]),
        ("a: {}  # (dict) x", [{"k": 1}], [[], "k"]),
        ("a: 0.2  # (float) x", [-7], [float("nan"), np.float32("nan")]),
        ("a: 3", [4], [0.5, "4"]),
        ("a: 0.5", [4, 0.1], ["4"]),
        ("a: ~", [None, 1, "x", []], []),
        ("a: 1  # (paper: 2) x", [4], ["4"]),
    ],
)
def test_types_and_bounds(tmp_path, line, good, bad):
    setting = setting_of(tmp_path, line)
    for value in good:
        assert setting.check(value) == (list(value) if isinstance(value, tuple) else value)
    for value in bad:
        assert error_of(setting.check, value).startswith("a=")


def test_error_text_says_what_may_stand_there(tmp_path):
    setting = setting_of(tmp_path, "dropout: 0.2  # (float; 0..<1) x")
    assert error_of(setting.check, 1.5) == "dropout=1.5: must be a number from 0 to below 1 (M.yaml)"
    setting = setting_of(tmp_path, "loss: CE  # (str; one of: CE, BPR) x")
    assert error_of(setting.check, "BRP") == ("loss='BRP': must be one of CE, BPR (did you mean BPR?) (M.yaml)")
    setting = setting_of(tmp_path, "k: [5]  # (list of int or ~; >= 1) x")
    assert "a list of whole numbers each of at least 1 or ~" in error_of(setting.check, [0])


def test_comments_of_nested_quoted_and_continued_lines(tmp_path):
    settings = read_settings(
        write(
            tmp_path / "M.yaml",
            (
                "args:            # (dict) Nested.\n  lr: 1e-3   # (int) not a setting\n"
                "sign: ' # (int)' # (str) Quoted.\n"
                "long: 1          # (int; >= 0) First,\n                 # second.\n"
                "wide: [1,\n  2]           # (list of int) Two lines.\n"
            ),
        )
    )
    assert list(settings) == ["args", "sign", "long", "wide"]
    assert settings["args"].default == {"lr": 1e-3} and settings["args"].meaning == "Nested."
    assert settings["sign"].types == ("str",) and settings["sign"].default == " # (int)"
    assert settings["long"].meaning == "First, second."
    assert settings["wide"].types == ("list of int",)


def test_yaml_numbers_and_nothing(tmp_path):
    values = read_yaml(write(tmp_path / "a.yaml", "a: 1e-3\nb: None\nc: ~\nd: 5\ne: 1.5e2\nf: -3E+2\n"))
    assert values == {"a": 1e-3, "b": None, "c": None, "d": 5, "e": 150.0, "f": -300.0}
    assert read_yaml(write(tmp_path / "empty.yaml", "# nothing\n")) == {}


def test_bad_yaml_files(tmp_path):
    assert "there is no file" in error_of(read_yaml, tmp_path / "none.yaml")
    assert "line 2" in error_of(read_yaml, write(tmp_path / "a.yaml", "a: 1\nb: c: d\n"))
    assert "key: value" in error_of(read_yaml, write(tmp_path / "b.yaml", "- a\n"))
    assert "line 2: a stands there twice" in error_of(read_settings, write(tmp_path / "c.yaml", "a: 1\na: 2\n"))
    assert "cannot read the constraint" in error_of(read_settings, write(tmp_path / "d.yaml", "a: 1 # (int; =>1) x\n"))
    assert "must be a whole number" in error_of(read_settings, write(tmp_path / "e.yaml", "a: x # (int) x\n"))
    (tmp_path / "f.yaml").write_bytes(b"a: \xff\n")
    assert "not UTF-8" in error_of(read_yaml, tmp_path / "f.yaml")


def test_constraint_refuses_what_it_does_not_know():
    with pytest.raises(ValueError):
        Constraint.read("about 3")


def test_recboles_files_read_tolerantly(tmp_path):
    path = write(tmp_path / "R.yaml", "alpha: 1\nw: x  # (float) wrong comment\nn: 2  # (int) x\nf: 1 # (floaty) x\n")
    settings = read_settings(path, tolerant=True)
    assert settings["alpha"].accepts(0.5)  # an uncommented whole number may be meant as any number
    assert settings["w"].accepts("y")  # a default that breaks its comment switches the check off
    assert settings["f"].accepts(0.5)
    assert not settings["n"].accepts("x")


def test_every_yaml_of_recbole_reads():
    files = list(recbole_properties().glob("model/*.yaml"))
    assert len(files) > 80
    assert sum(len(read_settings(file, tolerant=True)) for file in files) > 500


# values and arguments


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("[5,10]", [5, 10]),
        ("5,10", [5, 10]),
        ("[Hit, NDCG]", ["Hit", "NDCG"]),
        ("{split: {LS: valid_and_test}}", {"split": {"LS": "valid_and_test"}}),
        ("{'RS':[0.8,0.1]}", {"RS": [0.8, 0.1]}),
        ("True", True),
        ("true", True),
        ("FALSE", False),
        ("None", None),
        ("~", None),
        ("null", None),
        ("adam", "adam"),
        ("", ""),
        (" ", " "),
        ("\t", "\t"),
        ("[0,inf)", "[0,inf)"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("1/0", "1/0"),
        ("'7'", "7"),
        ("{1, 2}", "{1, 2}"),
        ("yes", "yes"),
        ("2020-01-01", "2020-01-01"),
        ("a=b", "a=b"),
    ],
)
def test_parse_value(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_parse_arguments():
    assert parse_arguments(["--a=1", "--b=x=y", "--c=", "--a=1"]) == {"a": "1", "b": "x=y", "c": ""}
    assert "write --epochs=3" in error_of(parse_arguments, ["--epochs", "3"])
    assert "write --epochs=VALUE" in error_of(parse_arguments, ["--epochs", "--b=1"])
    assert "write --epochs=3" in error_of(parse_arguments, ["epochs=3"])
    assert "--key=value" in error_of(parse_arguments, ["what"])
    assert "--key=value" in error_of(parse_arguments, ["--=3"])
    assert "--a=1 and --a=2" in error_of(parse_arguments, ["--a=1", "--a=2"])
