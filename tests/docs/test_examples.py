"""Every example runs, with one epoch and small networks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.files import ROOT

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
SMALL = {"epochs": 1, "hidden_size": 16, "inner_size": 16}
OPTIONS = [f"--{key}={value}" for key, value in SMALL.items()]


def start(folder, *command):
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=1200, env=one_thread
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts(script, tmp_path):
    said = start(tmp_path, str(script), *OPTIONS)
    last = {
        "own_table": "by brand",
        "compare_models": "95 % of it within",
        "new_users_and_items": "new-1     5",
    }
    assert last.get(script.stem, "") in said


def test_a_model_of_ones_own(tmp_path):
    shutil.copytree(EXAMPLES / "own_model", tmp_path / "own_model")
    said = start(
        tmp_path / "own_model",
        "-m",
        "recbole_contrec",
        "--model=LastItem",
        "--dataset=ml-100k",
        "--epochs=1",
        "--width=8",
    )
    assert "LastItem" in said and "ndcg@10" in said


def test_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for its kernel: another test runs beside it
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = EXAMPLES / "from_data_to_report.ipynb"
    notebook = nbformat.read(path, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs or cell.source.startswith("import") for cell in cells)  # it is read on the web as well
    [settings] = [cell for cell in cells if "SETTINGS = {" in cell.source]
    settings.source, count = re.subn(r"SETTINGS = \{.*\}", f"SETTINGS = {SMALL | {'state': 'ERROR'}}", settings.source)
    assert count == 1
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any("movie_title" in str(cell.outputs) for cell in cells)


def test_the_list_names_them_all():
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name == "README.md" or f"]({path.name})" in listed, path.name
    for _, target in re.findall(r"\[([^\]]+)\]\(([^)#]+)\)", listed):
        assert Path(EXAMPLES, target).exists(), target
