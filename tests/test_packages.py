"""Packages that are not installed: one line that names them and what to install, before anything is trained."""

import re
from importlib import metadata

import pytest

from recbole_contrec import packages
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.errors import UserError
from recbole_contrec.settings.registry import find_model, recbole_source
from recbole_contrec.training.start import check_packages


class Settings(dict):
    """As much of a configuration as is asked for packages."""

    def __init__(self, model, **values):
        super().__init__({"log_wandb": False, **values})
        self.entry = find_model(model, properties_folders())


@pytest.fixture
def without(monkeypatch):
    """A function (package) that takes a package away."""

    def take(*names):
        installed = packages.is_installed
        monkeypatch.setattr(packages, "is_installed", lambda name: name not in names and installed(name))

    return take


@pytest.mark.parametrize(
    "model, package, words",
    [
        ("NCL", "faiss", "RecBole's NCL needs faiss, which is not installed: pip install faiss-cpu"),
        ("KGAT", "dgl", "RecBole's KGAT needs dgl, which is not installed: pip install dgl"),
    ],
)
def test_what_models_of_recbole_import_in_the_middle(without, model, package, words):
    without(package)
    with pytest.raises(UserError, match=words):
        check_packages(Settings(model))


def test_what_settings_need(without):
    without("wandb")
    with pytest.raises(
        UserError, match=r"log_wandb=True needs wandb, which is not installed: pip install 'recbole_contrec\[wandb\]'"
    ):
        check_packages(Settings("SASRec", log_wandb=True))
    for model in ("SASRec", "ContRec", "LightGCN", "BERT4Rec", "EASE"):
        check_packages(Settings(model))


def test_models_that_are_not_supported_do_not_ask_for_their_packages():
    for model in ("XGBoost", "LightGBM"):
        with pytest.raises(UserError, match=f"RecBole's {model} .*not supported here"):
            find_model(model, properties_folders())


def test_packages_that_a_source_imports():
    assert packages.imported_by(recbole_source("NCL")) == ["faiss", "numpy", "scipy", "torch"]


def test_a_list_for_parquet_is_refused_before_anything_is_ranked(without, capsys, workplace):
    from recbole_contrec.cli import main

    without("pyarrow")
    assert main(["recommend", "--checkpoint=none", "--all", "--output=x.parquet"]) == 2
    assert (
        "writing Parquet needs pyarrow, which is not installed: pip install 'recbole_contrec[parquet]'"
        in capsys.readouterr().err
    )


def test_every_extra_that_is_named_exists():
    extras = metadata.requires("recbole_contrec")
    for package, words in packages.INSTALL.items():
        if "[" in words:
            extra = words.split("[")[1].split("]")[0]
            assert any(re.fullmatch(rf"{package}\b.*extra == ['\"]{extra}['\"]", line) for line in extras), extra
