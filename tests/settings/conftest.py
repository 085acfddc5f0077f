"""The working directory of the tests of settings."""

import sys
import types

import pytest

from tests.helpers.toy import BASE_YAML, MODEL_FILE, atomic, write


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a data set `toy`, a model `Toy` and its module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "untouched")  # RecBole writes it; other tests must not see that
    module = f"toy_{tmp_path.name.replace('-', '_')}"
    write(f"{module}.py", MODEL_FILE.format(name="Toy"))
    write("properties/model/Toy.yaml", BASE_YAML.format(module=module))
    atomic("toy", "user_id:token item_id:token rating:float timestamp:float")
    yield types.SimpleNamespace(path=tmp_path, module=module)
    sys.modules.pop(module, None)
