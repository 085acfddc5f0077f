"""Semantic ids in files: what the field writes is read as it means, and what cannot be meant is said with item and
line."""

import json

import numpy as np
import pytest
import torch

from recbole_contrec.tokenizer import read_codes, write_codes

TOKENS = ["[PAD]", "i1", "i2", "i3", "i4"]


def written(folder, content, name="ids.json", indent=None):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=indent))
    return path


def test_codes_in_the_order_of_the_data_set(tmp_path):
    path = written(tmp_path, {"i3": [0, 2], "i1": [1, 1], "elsewhere": [7, 0], "i2": [1, 0]})
    found = read_codes(path, TOKENS)
    assert found.codes.tolist() == [[-1, -1], [1, 1], [1, 0], [0, 2], [-1, -1]]
    assert found.largest == 7 and found.missing == ["i4"] and found.unknown == ["elsewhere"]
    assert not found.shared and not found.notes


def test_words_of_the_field_are_codes(tmp_path):
    path = written(tmp_path, {"i1": ["<a_183>", "<b_70>", "<c_2>"], "i2": ["<a_183>", "<b_122>", "<c_0>"]})
    assert read_codes(path, TOKENS).codes[1:3].tolist() == [[183, 70, 2], [183, 122, 0]]
    path = written(tmp_path, {"i1": ["a_4", "7"], "i2": [2, " <b_3> "]})
    assert read_codes(path, TOKENS).codes[1:3].tolist() == [[4, 7], [2, 3]]
    path = written(tmp_path, {"i1": ["<c_4>", "<c_7>"], "i2": ["<c_2>", "<c_3>"]})  # levels of one name are no mistake
    assert read_codes(path, TOKENS).codes[1:3].tolist() == [[4, 7], [2, 3]]


def test_item_numbers_are_named_beside_the_file(tmp_path):
    path = written(tmp_path, {"0": ["<a_1>", "<b_2>"], "2": ["<a_3>", "<b_0>"]}, "Beauty.index.json")
    with pytest.raises(ValueError, match=r"no item in common.*'0'.*'i4'.*Beauty.index.tokens.txt"):
        read_codes(path, TOKENS)
    (tmp_path / "Beauty.index.tokens.txt").write_text("i4\ni2\ni1\n")
    found = read_codes(path, TOKENS)
    assert found.codes.tolist() == [[-1, -1], [3, 0], [-1, -1], [-1, -1], [1, 2]]
    written(tmp_path, '{\n "0": [1, 2],\n "3": [1, 3]\n}', "Beauty.index.json")
    with pytest.raises(ValueError, match="line 3: .* names items 0 to 2, and '3' is none"):
        read_codes(path, TOKENS)
    written(tmp_path, {"0": [1, 2], "00": [1, 3]}, "Beauty.index.json")  # both would be i4
    with pytest.raises(ValueError, match="'00' is none"):
        read_codes(path, TOKENS)


def test_levels_that_count_on_from_each_other(tmp_path):
    """As RecBole 3 writes them: 256 codes a level, and a last one that counts from 1."""
    path = written(tmp_path, {"i1": [3, 256 + 9, 512 + 0, 769], "i2": [0, 256 + 255, 512 + 4, 769]})
    found = read_codes(path, TOKENS)
    assert found.codes[1:3].tolist() == [[3, 0, 0, 0], [0, 246, 4, 0]] and found.largest == 246
    assert "numbered from [0, 265, 512, 769]" in found.notes[0]
    path = written(tmp_path, {"i1": [3, 4], "i2": [0, 3]})  # these do not: 3 stands in both
    assert read_codes(path, TOKENS).codes[1:3].tolist() == [[3, 4], [0, 3]]


def test_a_code_that_only_some_items_need(tmp_path):
    rows = {"i1": ["<a_5>", "<b_6>"], "i2": ["<a_5>", "<b_6>", "<c_0>"], "i3": ["<a_1>", "<b_6>"]}
    found = read_codes(written(tmp_path, rows), TOKENS)
    assert found.codes[1:4].tolist() == [[5, 6, 1], [5, 6, 0], [1, 6, 0]]
    assert not found.shared and "first that is free" in found.notes[0]


def test_levels_that_count_on_where_only_some_items_have_the_last(tmp_path):
    """The same codes as those of the file whose levels begin at 0."""
    counted, plain = (
        read_codes(
            written(tmp_path, {"i1": [5, 256], "i2": [6, 257], "i3": [6, 257, 514], "i4": [6, 257, 512]}), TOKENS
        ),
        read_codes(written(tmp_path, {"i1": [0, 0], "i2": [1, 1], "i3": [1, 1, 2], "i4": [1, 1, 0]}), TOKENS),
    )
    assert counted.codes.tolist() == plain.codes.tolist()
    assert counted.codes.tolist()[1:5] == [[0, 0, 0], [1, 1, 1], [1, 1, 2], [1, 1, 0]] and counted.largest == 2
    assert "numbered from [5, 256, 512]" in counted.notes[0] and counted.notes[1:] == plain.notes
    half = read_codes(written(tmp_path, {"i1": [5, 256], "i2": [6, 257, 3]}), TOKENS)
    assert half.codes.tolist()[1:3] == [[5, 256, 0], [6, 257, 3]]  # the last level counts on from nothing


def test_items_with_the_same_codes_are_named(tmp_path):
    found = read_codes(written(tmp_path, {"i1": [1, 2], "i2": [1, 2], "i3": [0, 0], "x": [0, 0]}), TOKENS)
    assert found.shared == ["i1", "i2"]  # what the data set does not have, collides with nothing


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty"),
        ("{}", "holds no items"),
        ('{"i1": [1, 2],\n "i2": [1 2]}', "line 2: no JSON"),
        ("[[1, 2], [3, 4]]", "must be an object"),
        ('"i1"', "must be an object"),
        (
            '{\n"i1": [1, 2],\n"i2": [1, 3, 4],\n"i3": [1, 2, 3, 4],\n"i4": [4, 4]\n}',
            "line 3: item 'i2' has 3 codes and",
        ),
        ('{\n"i1": [1, 2],\n"i1": [1, 3]\n}', "line 3: item 'i1' stands there twice"),
        ('{\n"i1": [1, 2],\n"i2": [1, "film"]\n}', "line 3: item 'i2': \"film\" is no code"),
        ('{\n"i1": [1, 2.5]\n}', "line 2: item 'i1': 2.5 is no code"),
        ('{"i1": [1, true]}', "item 'i1': true is no code"),
        ('{"i1": [1, null]}', "item 'i1': null is no code"),
        ('{"i1": [1, -3]}', "item 'i1': code -3 is out of range, which is 0 to 65535"),
        ('{"i1": [1, 70000]}', "item 'i1': code 70000 is out of range"),
        ('{"i1": [1, "<b_70000>"]}', "out of range"),
        ('{"i1": []}', "item 'i1' must have a list of codes"),
        ('{"i1": {"a": 1}}', r"item 'i1' must have a list of codes, not \{\"a\": 1\}"),
        ('{"i1": "<a_1><b_2>"}', "item 'i1' must have a list of codes"),
        ('{"i1": ' + str([1] * 65) + "}", "item 'i1' has 65 codes: at most 64"),
        ('{"i1": ["<a_1", "b_1>"]}', '"<a_1" is no code'),
        (
            '{\n"i1": ["<a_0>", "<b_1>"],\n"i2": [2, 3],\n"i3": ["<b_1>", "<a_0>"]\n}',
            "line 4: item 'i3' has \"<b_1>\" at place 1, where most have words of 'a'",
        ),
        (  # the first item is as likely to be wrong as any other one
            '{\n"i1": ["<b_1>", "<a_0>"],\n"i2": ["<a_0>", "<b_1>"],\n"i3": ["<a_0>", "<b_2>"]\n}',
            "line 2: item 'i1' has \"<b_1>\" at place 1, where most have words of 'a'",
        ),
        ('{"i1": ["a_0", "b_1"], "i2": ["a_0", "c_1"]}', "item 'i2' has \"c_1\" at place 2"),
        ('{"i1": [1, ' + "9" * 5000 + "]}", "no JSON"),
        ('{"i1": [1, "<b_' + "9" * 5000 + '>"]}', "item 'i1': code .* is out of range"),
        ('{"film": [1, 2]}', "no item in common"),
        ("[" * 100_000, "no JSON|nested too deeply"),
    ],
)
def test_what_no_file_of_semantic_ids_may_be(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_codes(written(tmp_path, content), TOKENS)
    assert "ids.json" in str(raised.value)


def test_other_kinds_of_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="from a .json or .npy file"):
        read_codes(written(tmp_path, "i1 3 4", "ids.txt"), TOKENS)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_codes(tmp_path / "bytes.json", TOKENS)
    with pytest.raises(FileNotFoundError):
        read_codes(tmp_path / "nothing.json", TOKENS)


def test_arrays_with_their_items_beside_them(tmp_path):
    path = tmp_path / "ids.npy"
    np.save(path, np.array([[3, 1], [0, 0], [3, 1]]))
    with pytest.raises(FileNotFoundError, match="ids.tokens.txt"):
        read_codes(path, TOKENS)
    (tmp_path / "ids.tokens.txt").write_text("i4\ni2\nx\n")
    found = read_codes(path, TOKENS)
    assert found.codes.tolist() == [[-1, -1], [-1, -1], [0, 0], [-1, -1], [3, 1]]
    assert found.missing == ["i1", "i3"] and found.unknown == ["x"]


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((2, 2)), "whole numbers"),
        (np.zeros(2, dtype=int), r"shape \(2,\)"),
        (np.array([[1, 2], [1, -1]]), "row 1, item 'i2': a code is out of range"),
        (np.array([[1, 2**40], [1, 1]]), "row 0, item 'i1'"),
        (np.zeros((3, 2), dtype=int), "2 tokens but the array has 3 rows"),
        (np.zeros((2, 65), dtype=int), "65 codes an item"),
        (np.array([["a"], ["b"]]), "whole numbers"),
    ],
)
def test_arrays_that_are_no_codes(tmp_path, array, message):
    np.save(tmp_path / "ids.npy", array)
    (tmp_path / "ids.tokens.txt").write_text("i1\ni2\n")
    with pytest.raises(ValueError, match=message):
        read_codes(tmp_path / "ids.npy", TOKENS)


def test_what_is_written_is_read_again(tmp_path):
    tokens = [*TOKENS, 'a "film", ü: 1']
    codes = torch.randint(0, 50, (6, 3), generator=torch.Generator().manual_seed(0))
    codes[0] = codes[2] = 50  # no codes
    assert write_codes(tmp_path / "ids.json", tokens, codes, 50) == 4
    found = read_codes(tmp_path / "ids.json", tokens)
    assert torch.equal(found.codes, codes.masked_fill(codes == 50, -1)) and found.missing == ["i2"]
    assert len((tmp_path / "ids.json").read_text().splitlines()) == 4 + 2  # a line an item
