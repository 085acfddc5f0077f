"""Random damage to the bytes of an atomic file. Each takes them and a source of randomness."""

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
