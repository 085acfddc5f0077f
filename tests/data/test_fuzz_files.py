"""Random damage to ``.inter`` and ``.item``: refused in a line, or read as an independent reader reads it."""

import logging
import random
import time

import pytest

from tests.helpers.damage import DAMAGE, without_end
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


class Loaded(BaseException):
    """The data are read: nothing is to be trained."""


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
