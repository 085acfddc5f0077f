"""The page of settings says what the YAML files say, of every model."""

import re

import pytest

from recbole_contrec.catalogue.places import package_properties
from recbole_contrec.settings import document
from recbole_contrec.settings.registry import find_model, is_overlay
from recbole_contrec.settings.renamed import RENAMED
from tests.helpers.files import ROOT


@pytest.fixture(scope="module")
def page():
    return document.as_markdown()


def sections(page):
    """Text below every heading by its name."""
    parts = re.split(r"^#+ (.*)$", page, flags=re.M)
    return {name.strip("`"): text for name, text in zip(parts[1::2], parts[2::2])}


def test_the_page_is_up_to_date(page):
    assert (ROOT / document.DOCUMENT).read_text(encoding="utf-8") == page, (
        "run python -m recbole_contrec.settings.document"
    )


def test_every_setting_of_every_model_is_on_the_page(page):
    text = sections(page)
    names = {path.stem for path in package_properties().glob("model/*.yaml") if not is_overlay(path)}
    models = {model.name: model for model in document.read_models()}
    assert set(models) == names <= set(text)
    for name, model in models.items():
        entry = find_model(name, [package_properties()])
        own = [path for path in entry.chain if path.parents[1] == package_properties()]
        told = "".join(text[part] for part in (*model.groups, *(path.stem for path in own)))
        for key in entry.changes:
            assert f"`{key}`" in told or f"`{key}: " in told, (name, key)


def test_a_row_has_default_bounds_and_meaning(page):
    text = sections(page)
    assert "| `n_heads` | `2` | a whole number from 1 to 1000 | Attention heads. |" in text["compact"].splitlines()
    assert "Included by ContRec, DeftRec, TIGER, TokenRec, TokenRec-beam." in text["compact"]
    assert "`guidance: 2.0`" in text["ContRec-paper"] and "`hidden_size: 96`" in text["Data sets"]
    assert all(f"| `{old}` | `{new[0]}`" in text["Renamed settings"] for old, new in RENAMED.items())


def test_tables_are_whole(page):
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        rows = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(rows)) == 1, table[:200]


def test_groups_stand_in_the_order_of_a_run_behind_an_index(page):
    groups = page.split("\n## Groups\n")[1].split("\n## Models\n")[0]
    shown = re.findall(r"^### `(\w+)`", groups, re.M)
    assert shown[:2] == ["histories", "vectors"] and shown[-1] == "training"
    assert re.findall(r"^\| \[`(\w+)`\]\(#\1\)", groups, re.M) == shown
