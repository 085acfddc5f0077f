"""
recbole_contrec.compat
######################
What RecBole 1.2.1 needs on today's numpy (2.x), scipy and torch (2.6 and later): one small function a repair, each
with the upstream thread (github.com/RUCAIBox/RecBole) that reports the break. No repair changes what another
package sees, except for names that are missing.

Not repaired here on purpose: ``torch.load`` stays as it is (#2155, #2212, #2219: the trainer of this package keeps
checkpoints of its own), and ``recbole.quick_start``, the only module that imports ray, is never imported (#1990,
#2162).
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole_contrec.errors import UserError

RECBOLE = "1.2.1"

NUMPY_NAMES = {
    "bool": "bool_",
    "int": "int_",
    "float": "float64",
    "complex": "complex128",
    "object": "object_",
    "str": "str_",
    "long": "int_",
    "unicode": "str_",
}


def apply() -> None:
    """Run the repairs that RecBole needs before its first call. Doing it again changes nothing."""
    restore_numpy_names()
    restore_dok_update()
    leave_anomaly_mode()


def require_recbole() -> None:
    """Stop with the command that helps, where RecBole (or a pandas that it can read files with) is missing.

    RecBole's own requirements name a ray that has no build for Python 3.12 and later (#1820, #2105), so there it is
    installed without them. pandas 3 reads every ``token_seq`` column wrong (PR #2214).

    Raises:
        UserError: no RecBole, another version of it, or pandas 3.
    """
    options = "--no-deps " if sys.version_info >= (3, 12) else ""
    command = f"pip install {options}recbole=={RECBOLE}"
    try:
        import recbole
    except ImportError:
        raise UserError(f"RecBole is not installed: {command}") from None
    if recbole.__version__ != RECBOLE:
        raise UserError(f"RecBole {recbole.__version__} is installed, this package extends {RECBOLE}: {command}")

    import pandas

    if int(pandas.__version__.split(".")[0]) >= 3:
        raise UserError(
            f"RecBole {RECBOLE} cannot read data with pandas {pandas.__version__}: pip install 'pandas>=2,<3'"
        )


def restore_numpy_names() -> None:
    """``np.float`` and its kin, which RecBole uses in its metrics and numpy 1.24 removed (#1604, #1714, #2162,
    PR #2203). Names that exist are left alone: ``np.bool`` and ``np.long`` are numpy's own again since 2.0."""
    import numpy as np

    for old, new in NUMPY_NAMES.items():
        if old not in vars(np):  # not hasattr(): numpy 1.26 warns when it is asked for a removed name
            setattr(np, old, getattr(np, new))


def restore_dok_update() -> None:
    """``dok_matrix._update``, removed in scipy 1.13, with which LightGCN, NGCF, NCL and others fill
    their graph (#2034, #2090, #2185)."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, entries: self._dict.update(entries)


def silence_tensorboard() -> None:
    """RecBole's trainers open a file of TensorBoard in every process (trainer.py:105); in this one they write nowhere
    from now on."""
    from types import SimpleNamespace

    import recbole.trainer.trainer as trainer

    def nothing(*_: Any, **__: Any) -> None:
        """In place of every method that a trainer calls."""

    trainer.get_tensorboard = lambda logger: SimpleNamespace(add_scalar=nothing, add_hparams=nothing)


def leave_anomaly_mode() -> None:
    """Import RecBole's sequential models without the side effect of one of them: ``sine.py``, line 25, turns autograd's
    anomaly detection on for the whole process, which slows every training step (no upstream thread). Whoever wants it
    turns it on himself, and keeps it."""
    import torch

    before = torch.is_anomaly_enabled()
    import recbole.model.sequential_recommender  # noqa: F401  (imported once, here; later imports find it loaded)

    torch.autograd.set_detect_anomaly(before)


# Messages about RecBole's own lines, which a user of it can do nothing about. All of these still work.
_WARNINGS = (
    (r".*torch\.cuda\.amp\.GradScaler", FutureWarning),  # trainer.py:235, once an epoch (PR #2214)
    (r".*chained assignment using an inplace method", FutureWarning),  # dataset.py:501,648,650, pandas 2 (PR #2214)
    (r".*in Series\.agg cannot aggregate", FutureWarning),  # dataset.py:1217, pandas 2 (PR #2214)
)


@contextmanager
def quiet_recbole() -> Iterator[None]:
    """Around calls of RecBole (building a data set, training): hide its known deprecations, and no other warning."""
    with warnings.catch_warnings():
        for message, category in _WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        yield


def _safe_collector() -> type:
    """RecBole's collector calls ``.cpu()`` on everything it holds, also on the counters that coverage and popularity
    metrics ask for (#2194, PR #2209)."""
    import copy

    import torch
    from recbole.evaluator.collector import Collector

    class SafeCollector(Collector):
        """RecBole's collector, with ``.cpu()`` on tensors only."""

        def get_data_struct(self) -> Any:
            """What was collected, on the CPU; resets what belongs to one evaluation."""
            held = self.data_struct._data_dict
            for key, value in held.items():
                held[key] = value.cpu() if isinstance(value, torch.Tensor) else value
            collected = copy.deepcopy(self.data_struct)
            for key in ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label"):
                held.pop(key, None)
            return collected

    return SafeCollector


def __getattr__(name):
    # SafeCollector is made on first use: this module must import where RecBole is missing, to say so.
    if name == "SafeCollector":
        globals()[name] = _safe_collector()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
