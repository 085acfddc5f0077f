"""
benchmarks.grid
###############
Tunes a model on validation: one run for every line of ``grids/MODEL_on_DATASET.yaml``, and a table of what they reached.

    python benchmarks/grid.py --model=SASRec --dataset=ml-100k

A line of the grid is a mapping from settings to values; all others come from the model's YAML. Finished runs are kept and
never repeated. Test results are not kept: a grid is there to choose, and only validation may choose. Results and table go to
``OUTPUT/DATASET-grid/MODEL/``.
"""

import argparse
import sys
from pathlib import Path

import yaml

from compare import FIRST_SEED, run_all
from markdown import four, head, line, seconds
from runs import RESULTS, Result, Run, load
from tables import epoch_seconds

GRIDS = Path(__file__).parent / "grids"


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the table; 0, or 1 if a run failed or there is no such grid."""
    given = _parse(arguments)
    try:
        points = read_points(given.grid or GRIDS / f"{given.model}_on_{given.dataset}.yaml")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    folder = given.output / f"{given.dataset}-grid" / given.model
    failed = run_all([Run(given.model, given.dataset, given.seed, folder, name_of(point), settings_of(point), tested=False)
                      for point in points], given.data_path)
    found = load(folder)
    if found:
        text = table(points, found, given.seed)
        (folder / "README.md").write_text(f"# {given.model} on {given.dataset}, validation\n\n{text}\n")
        print(text)
    print(*failed, sep="\n", end="", file=sys.stderr)
    return 1 if failed else 0


def read_points(path: Path) -> list[dict]:
    """The lines of a grid.

    Raises:
        OSError: no such file.
        ValueError: not a list of mappings, or the lines do not set the same keys.
    """
    points = yaml.safe_load(path.read_text())
    if not isinstance(points, list) or not all(isinstance(point, dict) and point for point in points):
        raise ValueError(f"{path}: a grid is a list of mappings, - {{learning_rate: 1e-3}}")
    if any(point.keys() != points[0].keys() for point in points):
        raise ValueError(f"{path}: every line sets the same keys")
    return points


def settings_of(point: dict) -> tuple[str, ...]:
    """Arguments of a line's run."""
    return tuple(f"--{key}={value}" for key, value in point.items())


def name_of(point: dict) -> str:
    """Folder of a line's run."""
    return ",".join(f"{key}={value}" for key, value in point.items())


def table(points: list[dict], found: dict[str, list[Result]], seed: int) -> str:
    """The finished lines, the best first."""
    rows = [(point, result.content) for point in points for result in found.get(name_of(point), [])
            if result.content["card"]["seed"] == seed]
    rows.sort(key=lambda row: -row[1]["best_valid_result"]["ndcg@10"])
    lines = head(*points[0], "valid NDCG@10", "HR@10", "best epoch", "epochs", "core-s an epoch")
    for point, content in rows:
        valid = content["best_valid_result"]
        lines.append(line(*point.values(), four(valid["ndcg@10"]), four(valid["hit@10"]), content["best_epoch"],
                          content["epochs"], seconds([epoch_seconds(content)])))
    commits = sorted({content["card"]["commit"] for _, content in rows})
    return "\n".join(lines) + f"\n\nSeed {seed}, commit {', '.join(commits)}."


def _parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path", help="folder of data sets that RecBole does not ship")
    parser.add_argument("--grid", type=Path, help="another file of settings (benchmarks/grids/MODEL_on_DATASET.yaml)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for results (benchmarks/results)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
