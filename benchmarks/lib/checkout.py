"""
benchmarks.lib.checkout
#######################
Processes of the benchmarks import the two packages of their own checkout, ``benchmarks`` and ``recbole_contrec``, not
an installed version. ``PYTHONPATH`` says so, which processes that they start inherit.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """The environment of a process that finds this checkout first."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def take_properties(folder: Path) -> None:
    """Let the YAML files of ``./properties`` count in another working directory as well: settings are read there again,
    and must come out the same."""
    own = Path("properties")
    if own.is_dir() and not (folder / own).exists():
        (folder / own).symlink_to(own.absolute(), target_is_directory=True)


def run_as_module(script: str) -> None:
    """Start a command of ``benchmarks/`` anew as a module, in the place of this process.

    Python run with the path of a script finds that script's folder first and the package around it not at all. So
    ``python benchmarks/compare.py ...`` becomes ``python -m benchmarks.compare ...``, from whatever folder.

    Args:
        script: ``__file__`` of the command.
    """
    options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]  # of Python itself, such as -O
    module = f"benchmarks.{Path(script).stem}"
    # PYTHONSAFEPATH: another checkout in the working directory is not looked at (Python 3.11 and later)
    own = {**environment(), "PYTHONSAFEPATH": "1"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *options, "-m", module, *sys.argv[1:]], own)
