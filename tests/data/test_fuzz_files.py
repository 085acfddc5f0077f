"""Random damage to ``.inter`` and ``.item``: refused in a line, or read as an independent reader reads it."""

import logging
import random
import time

import pytest

from tests.helpers.files import write_atomic_files
from tests.helpers.independent import histories, histories_of_run, read_events

SECONDS = 14
FIRST, CASES = 0, 400  # seeds, at most
MODELS = (
    ["--model=ContRec"],
    ["--model=SASRec"],
    [
        "--model=SASRec",
        "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': ['item_id', 'title', 'genre']}",
    ],
)
NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e39",
    "0x10",
    "1,5",
    "1_0",
    "",
    " ",
    " 5",
    "5 ",
    "+5",
    "-3",
    "1e3",
    "٣",
    "--1",
    "soon",
    "NA",
    "1.5",
    ".5",
    "5.",
    "1600000000001",
    "1600000000000000001",
    "1600000001",
    "1600000002",
    "True",
    "1e-400",
    "0",
)
IDS = (
    "NA",
    "null",
    "None",
    "",
    " ",
    "nan",
    "[PAD]",
    "u1 ",
    " u1",
    "0",
    "-1",
    "#N/A",
    "ü",
    "日本",
    "x" * 300,
    "a\x0bb",
    "a\u2028b",
    "a\x85b",
    "1e5",
    "u1",
    "i1",
    '"',
    '"u1"',
    'u"1',
    '"u"1',
    "a:b",
    "N/A",
    "\ufeffu1",
    "\x1f",
    "\x1a",
    "#",
    "'u1'",
)
TYPES = ("token", "float", "token_seq", "float_seq", "int", "", "Token", "float ", "str")


class Loaded(BaseException):
    """The data are read: nothing is to be trained."""


# damage: each takes the bytes of a file and a source of randomness


def _lines(data):
    return data.split(b"\n")


def _change_cell(data, rng, values, column=None):
    lines = _lines(data)
    number = rng.randrange(1, len(lines)) if len(lines) > 1 else 0
    cells = lines[number].split(b"\t")
    cells[min(len(cells) - 1, rng.randrange(len(cells)) if column is None else column)] = rng.choice(values).encode()
    lines[number] = b"\t".join(cells)
    return b"\n".join(lines)


def odd_number(data, rng):
    return _change_cell(data, rng, NUMBERS, 3)


def odd_id(data, rng):
    return _change_cell(data, rng, IDS, rng.randrange(2))


def odd_cell(data, rng):
    return _change_cell(data, rng, NUMBERS + IDS)


def fields_dropped_or_doubled(data, rng):
    lines = _lines(data)
    for number in [rng.randrange(len(lines))] if rng.random() < 0.7 else range(rng.randrange(2), len(lines)):
        cells = lines[number].split(b"\t")
        place = rng.randrange(len(cells))
        cells[place : place + 1] = cells[place : place + 1] * rng.choice((0, 2))
        lines[number] = b"\t".join(cells)
    return b"\n".join(lines)


def separators(data, rng):
    new = rng.choice((b",", b" ", b"::", b"\t\t", b"", b";"))
    if rng.random() < 0.3:
        return data.replace(b"\t", new)
    places = [place for place, byte in enumerate(data) if byte == 9]
    place = rng.choice(places) if places else 0
    return data[:place] + new + data[place + 1 :]


def tabs_at_the_end(data, rng):
    lines = _lines(data)
    return b"\n".join(line + b"\t" * (rng.random() < 0.5 or len(lines) % 2) for line in lines)


def header(data, rng):
    head, _, rest = data.partition(b"\n")
    cells = head.decode("utf-8", "replace").split("\t")
    place = rng.randrange(len(cells))
    name = cells[place].split(":")[0]
    what = rng.randrange(5)
    if what == 0:
        cells[place] = f"{name}:{rng.choice(TYPES)}"
    elif what == 1:
        cells[place] = name
    elif what == 2:
        cells[place] = cells[rng.randrange(len(cells))]
    elif what == 3:
        rng.shuffle(cells)
    else:
        cells[place] = rng.choice(IDS) + ":" + rng.choice(TYPES)
    return "\t".join(cells).encode() + b"\n" + rest


def quotation_marks(data, rng):
    for _ in range(rng.randrange(1, 4)):
        what, place = rng.randrange(4), rng.randrange(len(data) + 1)
        if what == 0:
            data = data[:place] + b'"' + data[place:]
        elif what == 1:
            data = data.replace(b"\t", b'\t"', 1) if rng.random() < 0.5 else data.replace(b"\n", b'\n"', 1)
        else:  # around a field, or from the middle of one row to the next
            lines = _lines(data)
            number = rng.randrange(len(lines))
            cells = lines[number].split(b"\t")
            place = rng.randrange(len(cells))
            cells[place] = b'"' + cells[place] + b'"' * (what == 2)
            lines[number] = b"\t".join(cells)
            if what == 3 and number + 1 < len(lines):
                lines[number + 1] += b'"'
            data = b"\n".join(lines)
    return data


def bytes_at_random(data, rng):
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place, what = rng.randrange(len(changed) + 1), rng.randrange(3)
        byte = rng.choice((0, 9, 10, 13, 34, 0xFF, 0xE9, rng.randrange(256)))
        changed[place : place + (what > 0)] = [byte] if what < 2 else []
    return bytes(changed)


def cut_off(data, rng):
    return data[: rng.randrange(len(data) + 1)]


def encoded(data, rng):
    text = data.decode("utf-8", "replace").replace("u1", "ü1")
    return text.encode(
        rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-8-sig", "cp1252")), "replace"
    )


def line_ends(data, rng):
    what = rng.randrange(3)
    if what < 2:
        return data.replace(b"\n", (b"\r\n", b"\r")[what])
    lines = _lines(data)
    return b"".join(
        line + rng.choice((b"\n", b"\r\n", b"\r", b"\n\n", b"\n \n")) if rng.random() < 0.1 else line + b"\n"
        for line in lines
    )


def byte_order_mark(data, rng):
    place = 0 if rng.random() < 0.7 else rng.randrange(len(data) + 1)
    return data[:place] + b"\xef\xbb\xbf" + data[place:]


def empty_lines(data, rng):
    lines = _lines(data)
    for _ in range(rng.randrange(1, 4)):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice((b"", b"", b"", b" ", b"\t", b"\t\t\t")))
    return b"\n".join(lines)


def other_order(data, rng):
    head, *rows = _lines(data.rstrip(b"\n"))
    rng.shuffle(rows)
    return b"\n".join([head, *rows, *rows[: rng.randrange(3)]]) + b"\n"


def without_end(data, rng):
    return data.rstrip(b"\n")


DAMAGE = [
    odd_number,
    odd_id,
    odd_cell,
    fields_dropped_or_doubled,
    separators,
    tabs_at_the_end,
    header,
    quotation_marks,
    bytes_at_random,
    cut_off,
    encoded,
    line_ends,
    byte_order_mark,
    empty_lines,
    other_order,
    without_end,
    odd_number,
    odd_id,
]


# one case


@pytest.fixture
def loads(workplace, monkeypatch, capsys):
    """A function (seed) -> exit code: damage that the seed draws, and what a run makes of it."""
    from recbole_contrec import cli, quick_start

    found = {}

    def stop(config, data):
        found["data"] = data
        raise Loaded

    monkeypatch.setattr(quick_start, "assemble", stop)
    folder = write_atomic_files(workplace / "data", n_users=8, n_items=20)
    clean = {suffix: (folder / f"tiny.{suffix}").read_bytes() for suffix in ("inter", "item")}
    level, handlers = logging.getLogger("recbole_contrec").level, logging.getLogger("recbole_contrec").handlers

    def load(seed):
        rng = random.Random(seed)
        files = dict(clean)
        names = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            suffix = "inter" if rng.random() < 0.75 else "item"
            damage = rng.choice(DAMAGE)
            names.append(f"{damage.__name__} of {suffix}")
            files[suffix] = damage(files[suffix], rng) or b""
        for suffix, data in files.items():
            (folder / f"tiny.{suffix}").write_bytes(data)
        arguments = [
            "--dataset=tiny",
            f"--data_path={workplace}/data",
            "--use_gpu=False",
            "--topk=[1]",
            "--valid_metric=NDCG@1",
            *rng.choice(MODELS),
        ]
        if any(name.startswith("encoded of inter") for name in names) and rng.random() < 0.7:
            arguments.append(f"--encoding={rng.choice(('utf-16', 'utf-32', 'latin-1', 'utf-8', 'utf-16-le'))}")
        found.clear()
        try:
            code = cli.main(arguments)
        except Loaded:
            code = 0
        said = capsys.readouterr()
        about = f"seed {seed}: {', '.join(names)}; {' '.join(arguments)}\n{said.err}"
        assert code in (0, 2), about
        if code == 2:
            assert said.err.startswith("error: ") and len(said.err.splitlines()) <= 2 and len(said.err) < 1700, about
            assert "Traceback" not in said.err and not any(ord(sign) < 32 and sign != "\n" for sign in said.err), about
        else:
            encoding = next((a.split("=")[1] for a in arguments if a.startswith("--encoding")), "utf-8")
            if files["inter"].startswith(b"\xef\xbb\xbf"):
                encoding = "utf-8"
            encoding = {"utf-8": "utf-8-sig"}.get(encoding, encoding)
            (folder / "tiny.inter").write_bytes(_without_marks(files["inter"], encoding))
            dataset = found["data"].dataset  # its columns are named by the log where the header has other names
            real = histories(
                read_events(
                    folder / "tiny.inter", dataset.uid_field, dataset.iid_field, dataset.time_field, encoding=encoding
                )
            )
            assert histories_of_run(found["data"]) == only_known(real, found["data"]), about
        return code, names

    yield load
    logging.getLogger("recbole_contrec").setLevel(level)
    logging.getLogger("recbole_contrec").handlers = handlers


def _without_marks(data, encoding):
    """Byte order marks that Python's codec of that name takes for a character."""
    if encoding == "utf-16-le":
        return data.removeprefix(b"\xff\xfe")
    while data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    return data


def only_known(real, data):
    """Without the events of items that have no row in a ``.item`` file which is loaded: these are left out, and that is
    said."""
    if "item" not in (data.dataset.config["load_col"] or ()):
        return real
    known = set(data.dataset.field2id_token[data.dataset.iid_field])
    if any("interactions are left out" in note for note in data.dataset.notes):
        real = {user: [item for item in items if item in known] for user, items in real.items()}
    return {user: items for user, items in real.items() if items}


def test_damaged_files_are_refused_in_a_line_or_read_as_they_are(loads):
    end, codes = time.monotonic() + SECONDS, []
    for seed in range(FIRST, FIRST + CASES):
        codes.append(loads(seed)[0])
        if time.monotonic() > end:
            break
    assert len(codes) > 5 and {0, 2} == set(codes)


def test_the_base_data_are_read(loads, monkeypatch):
    """Without damage all is read: otherwise the test above has little to say."""
    monkeypatch.setitem(globals(), "DAMAGE", [without_end])
    assert loads(0)[0] == 0
