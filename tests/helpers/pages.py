"""The README and the pages of docs/ as code blocks and commands, and a working folder in which these run in seconds."""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import yaml

from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.settings.registry import find_model, general_settings
from tests.helpers.files import ROOT, write_t5

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
STORIES = ROOT / "tests" / "files" / "stories260k"  # a Llama of 260 thousand parameters
FENCE = re.compile(r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"^ {4}(?P<text>(?:pip|python) .*)$", re.M)

# Small data under the names of the pages: users and items that they ask for, and the columns of the real files.
USERS = [str(user) for user in (*range(1, 31), 186, 196, 22)]
ITEMS = [str(item) for item in (*range(1, 56), 174, 181)]
HEADERS = {
    "ml-100k": ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "movie_title", "class"),
    "ml-1m": ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "movie_title", "genre"),
    "amazon-beauty": ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "title", "category"),
    "shop": ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "title", "category"),
    "lastfm": ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "name", "category"),
}
PREPARED = "shop", "lastfm"  # which pages make
MODELS = (
    *("ContRec", "ContRec-paper", "DeftRec", "DeftRec-paper", "TokenRec", "TokenRec-paper", "TokenRec-beam"),
    *("TIGER", "TIGER-paper", "SIIT", "SIIT-paper", "SIIT-states", "SASRecAll", "SASRecAll-repeat", "SASRecAll-svd"),
    *("SASRecAll-texts", "SASRec", "SASRec-200", "BERT4Rec", "BERT4Rec-200", "GRU4Rec", "GRU4Rec-200", "LightGCN"),
)
# What the pages leave at its default, small enough for seconds; each model takes those that it has.
SMALL = {
    "epochs": 1,
    "MAX_ITEM_LIST_LENGTH": 10,
    "hidden_size": 16,
    "inner_size": 32,
    "n_layers": 1,
    "n_heads": 2,
    "tokenizer_epochs": 1,
    "lightgcn_epochs": 1,
    "sampling_steps": 2,
    "noise_levels": 20,
    "vocabulary_size": 300,
    "answers_per_window": 1,
    "refine_every": 1,
    "refine_candidates": 4,
    "refine_groups": 2,
    "show_progress": False,
}


class Block(NamedTuple):
    """A code block of a page, with the line that it begins at."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The code blocks of a page in their order, of one language or of all; an indented command is one of ``sh``."""
    text = page.read_text(encoding="utf-8")
    found = [(match.start(), match["language"], match["title"], match["text"]) for match in FENCE.finditer(text)] + [
        (match.start(), "sh", None, match["text"]) for match in INDENTED.finditer(FENCE.sub(_blank, text))
    ]
    return [
        Block(page, text.count("\n", 0, start) + 1, kind, title, content)
        for start, kind, title, content in sorted(found, key=lambda entry: entry[0])
        if language in (None, kind)
    ]


def commands(block: Block) -> list[list[str]]:
    """The commands of a block of ``sh`` as words, without comments; of ``a && b`` both."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [
        shlex.split(part, comments=True)
        for line in lines
        for part in line.split(" && ")
        if shlex.split(part, comments=True)
    ]


def write_workplace(folder: Path) -> None:
    """Everything that the commands of the pages find on the disk of a reader, but small."""
    for name in HEADERS:
        _write_data(folder / "DIR" / name, name)
        if name not in PREPARED:
            _write_data(folder / "dataset" / name, name)
    rows = [f"{user},{item},{time}" for time, (user, item) in enumerate(_walks())]
    (folder / "buys.csv").write_text("\n".join(["uid,sku,ts", *rows]) + "\n")
    rows = [f"{item},Thing {item},{'odd' if int(item) % 2 else 'even'}" for item in ITEMS]
    (folder / "products.csv").write_text("\n".join(["sku,name,brand", *rows]) + "\n")
    histories: dict[str, list[str]] = {}
    for user, item in _walks():
        histories.setdefault(user, [user]).append(item)
    (folder / "LastFM.txt").write_text("\n".join(map(" ".join, histories.values())) + "\n")
    (folder / "ids.json").write_text(json.dumps({item: [place // 8, place % 8] for place, item in enumerate(ITEMS)}))
    (folder / "my.yaml").write_text("learning_rate: 0.002\n")
    for place in ("MODEL", "Qwen/Qwen2.5-0.5B"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).symlink_to(STORIES)
    (folder / "google-t5").mkdir()
    write_t5(folder / "google-t5" / "t5-small")
    properties = folder / "properties" / "model"
    properties.mkdir(parents=True)
    folders = properties_folders()
    for model in MODELS:
        known = {**general_settings(folders)[0], **find_model(model, folders).settings}
        small = {key: value for key, value in SMALL.items() if key in known}
        if model.startswith("SIIT") or model in ("TIGER", "TokenRec-beam"):
            small["epochs"] = 2  # the first refinement comes before the second epoch
        for name in HEADERS:
            # Not the ml-100k that comes with RecBole; what a page prepares lies in the folder one is in.
            small["data_path"] = "dataset" if name in PREPARED else str(folder / "dataset")
            (properties / f"{model}_on_{name}.yaml").write_text(yaml.safe_dump(small))


def _write_data(folder: Path, name: str) -> None:
    header, title, category = HEADERS[name]
    folder.mkdir(parents=True)
    rows = [f"{user}\t{item}\t{1 + time % 5}\t{time}" for time, (user, item) in enumerate(_walks())]
    (folder / f"{name}.inter").write_text("\n".join([header, *rows]) + "\n")
    rows = [f"{item}\tStar Wars {item}\t1990\t{'odd' if int(item) % 2 else 'even'} kind" for item in ITEMS]
    header = f"item_id:token\t{title}:token_seq\trelease_year:token\t{category}:token_seq"
    (folder / f"{name}.item").write_text("\n".join([header, *rows]) + "\n")


def _walks() -> list[tuple[str, str]]:
    """Everybody walks through the items in steps of one or two: user and item of every interaction."""
    found = []
    for number, user in enumerate(USERS):
        place = 7 * number
        for step in range(6 + number % 9):
            place += 1 + (step + number) % 2
            found.append((user, ITEMS[place % len(ITEMS)]))
    return found


def _blank(match: re.Match) -> str:
    """As many lines without anything in them, so that lines keep their numbers."""
    return re.sub(r"[^\n]", " ", match[0])
