"""recbole_contrec.compat: RecBole on today's numpy, scipy and torch."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from recbole_contrec import compat
from tests.helpers.files import ROOT
from tests.helpers.toy import FULL, error_of


def test_numpy_names_are_set_only_where_missing(monkeypatch):
    monkeypatch.delattr(np, "float", raising=False)
    mine = object()
    monkeypatch.setattr(np, "long", mine, raising=False)
    compat.restore_numpy_names()
    assert np.float is np.float64
    assert np.long is mine


def test_apply_twice_changes_nothing():
    from scipy.sparse import dok_matrix

    compat.apply()
    before = {name: getattr(np, name) for name in compat.NUMPY_NAMES}, dok_matrix._update
    compat.apply()
    assert before == ({name: getattr(np, name) for name in compat.NUMPY_NAMES}, dok_matrix._update)


def test_dok_update_fills_a_matrix():
    from scipy.sparse import dok_matrix

    matrix = dok_matrix((2, 3))
    matrix._update({(0, 1): 2.0, (1, 2): 3.0})
    assert matrix.toarray().tolist() == [[0, 2, 0], [0, 0, 3]]


def test_an_existing_dok_update_stays(monkeypatch):
    from scipy.sparse import dok_matrix

    mine = lambda self, entries: None  # noqa: E731
    monkeypatch.setattr(dok_matrix, "_update", mine)
    compat.restore_dok_update()
    assert dok_matrix._update is mine


def test_collector_keeps_counters_and_resets_tensors():
    collector = compat.SafeCollector(
        {"eval_args": {"mode": FULL}, "topk": [1], "device": "cpu", "metrics": ["AveragePopularity", "NDCG"]}
    )
    collector.data_struct.set("data.count_items", {1: 5})
    collector.data_struct.set("rec.topk", torch.ones(2, 2))
    collected = collector.get_data_struct()
    assert collected.get("data.count_items") == {1: 5}
    assert collected.get("rec.topk").shape == (2, 2)
    fake = torch.ones(2).as_subclass(type("OnGpu", (torch.Tensor,), {"cpu": lambda self: torch.zeros(1)}))
    collector.data_struct.set("rec.items", fake)
    assert collector.get_data_struct().get("rec.items").tolist() == [0]
    assert "rec.topk" not in collector.data_struct and "data.count_items" in collector.data_struct


def test_recboles_own_collector_still_has_the_fault_that_we_repair():
    from recbole.evaluator.collector import Collector

    collector = Collector({"eval_args": {"mode": FULL}, "topk": [1], "device": "cpu", "metrics": ["NDCG"]})
    collector.data_struct.set("data.num_items", 3)
    with pytest.raises(AttributeError):
        collector.get_data_struct()


@pytest.mark.parametrize(
    "version, command", [((3, 11), "pip install recbole==1.2.1"), ((3, 12), "pip install --no-deps recbole==1.2.1")]
)
def test_missing_recbole_names_the_command(monkeypatch, version, command):
    monkeypatch.setitem(sys.modules, "recbole", None)
    monkeypatch.setattr(compat.sys, "version_info", version)
    assert error_of(compat.require_recbole).endswith(command)


def test_other_versions_of_recbole_and_pandas_are_refused(monkeypatch):
    import pandas
    import recbole

    compat.require_recbole()
    with monkeypatch.context() as patch:
        patch.setattr(pandas, "__version__", "3.0.1")
        assert "pandas>=2,<3" in error_of(compat.require_recbole)
    monkeypatch.setattr(recbole, "__version__", "1.1.1")
    assert "1.1.1" in error_of(compat.require_recbole)


def test_only_known_warnings_are_hidden():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with compat.quiet_recbole():
            warnings.warn("`torch.cuda.amp.GradScaler(args...)` is deprecated.", FutureWarning)
            warnings.warn("something else", FutureWarning)
        warnings.warn("`torch.cuda.amp.GradScaler(args...)` is deprecated.", FutureWarning)
    assert [str(w.message)[:10] for w in seen] == ["something ", "`torch.cud"]


def test_a_fresh_process_has_no_ray_and_the_same_torch_load():
    code = (
        "import sys, torch; load = torch.load; import numpy as np\n"
        "from recbole_contrec.settings.config import Config\n"
        "assert torch.load is load and np.float is np.float64\n"
        "print('ray' in sys.modules, 'recbole.quick_start' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False False", done.stderr
