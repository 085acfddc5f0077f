"""
recbole_contrec.environment
###########################
What a result depends on besides its settings: versions, commit, device, memory.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from recbole_contrec import __version__

PACKAGES = ("recbole", "torch", "numpy", "pandas", "scipy", "transformers", "safetensors")


def package_versions() -> dict[str, str]:
    """Versions of this package and of those its numbers depend on."""
    found = {"recbole_contrec": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the checkout the package runs from, with ``+`` where code or settings differ from it; None for an
    installed wheel."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        return _git(folder, "rev-parse", "--short=12", "HEAD") + (
            "+" if _git(folder, "status", "--porcelain", "-uno", "--", ".", "../properties") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()


def device_name(device: torch.device | str) -> str:
    """The device as a reader of results wants to know it."""
    import torch

    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    # Not getrusage where the kernel has VmHWM: its figure survives exec, so that a child starts with its parent's peak.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def peak_gpu_memory(device: torch.device | str) -> int | None:
    """Largest memory that torch held on a GPU so far, in MiB; None on other devices."""
    import torch

    device = torch.device(device)
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else None
