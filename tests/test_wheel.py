"""The wheel: it holds what it needs and no tests, and works where the checkout is out of reach."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers.files import ROOT, write_atomic_files
from tests.helpers.options import TINY_CONTREC

SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "run_recbole_contrec.py",
    "recbole_contrec",
    "properties",
    "tests",
)


def run(*command, cwd):
    """Run a command far from the checkout, without the paths that lead to it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        env={**environment, "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, copy / name)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder / "built",
        copy,
        cwd=folder,
    )
    [built] = (folder / "built").iterdir()
    assert built.suffix == ".whl"
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A virtual environment with the wheel; what the package depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=os.name != "nt")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    assert folder in purelib.parents
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A path in a .pth file stands behind the environment's own folder, and .pth files there (of an editable
    # installation) are not read.
    places = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (purelib / "dependencies.pth").write_text("\n".join(places) + "\n")
    return python, purelib


def test_what_the_wheel_holds(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("model", "dataset", "groups"):
        wanted = {
            f"recbole_contrec/properties/{kind}/{path.name}" for path in (ROOT / "properties" / kind).glob("*.yaml")
        }
        assert wanted and wanted <= names
    assert {"recbole_contrec/properties/overall.yaml", "recbole_contrec/properties/model/ContRec.yaml"} <= names
    assert "recbole_contrec/py.typed" in names
    modules = {str(path.relative_to(ROOT).as_posix()) for path in (ROOT / "recbole_contrec").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}  # all modules, and no tests
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "recbole_contrec" in tops and "tests" not in tops
    [metadata] = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "recbole==1.2.1" in text.replace(" ", "") and text.count("Provides-Extra") >= 2
    assert len(text.split("\n\n", 1)[1]) > 200  # the README


def test_the_wheel_works_from_an_empty_folder(installed, tmp_path):
    python, purelib = installed
    code = (
        "import recbole_contrec, recbole, sys; from recbole_contrec.catalogue.places import package_properties as p; "
        "print(recbole_contrec.__file__); print(p())"
    )
    package, properties = map(Path, run(python, "-c", code, cwd=tmp_path).split("\n")[:2])
    assert package == purelib / "recbole_contrec" / "__init__.py"
    assert properties == purelib / "recbole_contrec" / "properties"

    lines = run(python, "-m", "recbole_contrec", "--list-models", cwd=tmp_path).splitlines()
    [line] = [line for line in lines if line.startswith("ContRec ")]
    assert str(purelib / "recbole_contrec" / "properties" / "model" / "ContRec.yaml") in line
    assert not list(tmp_path.iterdir()) and str(ROOT) not in "".join(lines)


def test_the_installed_command_trains(installed, tmp_path):
    python, _ = installed
    write_atomic_files(tmp_path / "data")
    run(
        python.parent / "recbole_contrec",
        "--model=ContRec",
        "--dataset=tiny",
        "--data_path=data",
        *TINY_CONTREC,
        "--run_name=mine",
        cwd=tmp_path,
    )
    result = json.loads((tmp_path / "saved/mine/result.json").read_text())
    assert result["card"]["model"] == "ContRec" and result["card"]["users"] == 40 and result["epochs"] == 2
    assert (tmp_path / "saved/mine/best.safetensors").is_file()
