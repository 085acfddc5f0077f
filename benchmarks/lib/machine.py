"""
benchmarks.lib.machine
######################
The machine that a measurement was taken on, and how exact its figures are.
"""

import argparse
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.lib.measuring import MIB
from recbole_contrec.environment import git_commit, package_versions


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on besides the options."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "memory_mib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB),
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "versions": package_versions(),
        "commit": git_commit(),
    }


def cpu_name() -> str:
    """As Linux names it; elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )


def rounded(value: Any) -> Any:
    """Floats to five digits, which is more than any clock is good for here."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
