"""
recbole_contrec.packages
########################
Packages that only some settings, models and formats need, and what to install for them.
"""

import importlib.util
import re
import sys
from pathlib import Path

from recbole_contrec.errors import UserError

# A package -> what pip installs for it: an extra of ours, or the package itself where RecBole alone needs it.
INSTALL = {
    "wandb": "'recbole_contrec[wandb]'",
    "pyarrow": "'recbole_contrec[parquet]'",
    "peft": "'recbole_contrec[llm]'",
    "accelerate": "'recbole_contrec[llm]'",
    "gguf": "'recbole_contrec[llm]'",
    "bitsandbytes": "'recbole_contrec[quantised]'",
    "matplotlib": "'recbole_contrec[benchmarks]'",
    "faiss": "faiss-cpu",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "'recbole_contrec[onnx]'"),
    "community": "python-louvain",
    "hyperopt": "'recbole_contrec[tuning]'",
}


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    if sys.modules.get(package) is not None:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def require(package: str, purpose: str) -> None:
    """Stop before the work where a package is missing.

    Args:
        package: as it is imported.
        purpose: what needs it, the beginning of the error.

    Raises:
        UserError: names the package and what to install.
    """
    if not is_installed(package):
        raise missing(package, purpose)


def missing(package: str, purpose: str) -> UserError:
    """The error of a package that is not installed."""
    return UserError(f"{purpose} needs {package}, which is not installed: pip install {INSTALL.get(package, package)}")


def imported_by(source: Path) -> list[str]:
    """Packages outside Python that a module imports, wherever in it: RecBole's models import some in the middle of
    training."""
    names = re.findall(r"^\s*(?:import|from) (\w+)", source.read_text(encoding="utf-8"), re.M)
    return sorted({*names} - {*sys.stdlib_module_names, "recbole"})
