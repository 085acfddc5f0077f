"""
benchmarks.lib.grids
####################
The files of :mod:`benchmarks.grid`: a list of settings to try.
"""

import errno
from pathlib import Path

import yaml

GRIDS = Path(__file__).parents[1] / "grids"


def read_points(path: Path) -> list[dict]:
    """The lines of a grid.

    Raises:
        OSError: no such file.
        ValueError: not YAML, not a list of mappings, or the lines do not set the same keys.
    """
    from recbole_contrec import UserError
    from recbole_contrec.settings.yaml_file import read

    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    try:
        read(path)
        points = yaml.safe_load(
            path.read_text(encoding="utf-8")
        )  # 1e-3 stays as it is written: rows are named after it
    except (UserError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(points, list) or not all(isinstance(point, dict) and point for point in points):
        raise ValueError(f"{path}: a grid is a list of mappings, - {{learning_rate: 1e-3}}")
    if any(point.keys() != points[0].keys() for point in points):
        raise ValueError(f"{path}: every line sets the same keys")
    return points
