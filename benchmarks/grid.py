"""
benchmarks.grid
###############
Tunes a model on validation: one run for every line of ``grids/MODEL_on_DATASET.yaml``, and a table of what they
reached.

    python benchmarks/grid.py --model=SASRec --dataset=ml-100k

A line of the grid is a mapping from settings to values; all others come from the model's YAML. Finished runs are kept
and not repeated, and of other settings or data only replaced with ``--again``. Test results are not kept: a grid is
there to choose, and only validation may choose. Results and table go to ``OUTPUT/DATASET-grid/MODEL/``.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import errno
import sys
from pathlib import Path
from statistics import mean

import yaml

from benchmarks.compare import FIRST_SEED, common_parser, run_all
from benchmarks.lib.command_line import name_of_a_folder, told
from benchmarks.lib.runs import Result, Run, load
from benchmarks.report.cells import head, line, same, seconds, spread
from benchmarks.report.tables import epoch_seconds

GRIDS = Path(__file__).parent / "grids"


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the table; 0, 1 if a run failed, 2 if there is no such grid, model or data
    set."""
    given = _parse(arguments)
    try:
        points = read_points(given.grid or GRIDS / f"{given.model}_on_{given.dataset}.yaml")
    except FileNotFoundError as error:
        known = ", ".join(sorted(path.stem for path in GRIDS.glob("*.yaml")))
        print(
            f"error: there is no grid {error.filename}; there are {known}. Write one and give it by --grid",
            file=sys.stderr,
        )
        return 2
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    folder = given.output / f"{given.dataset}-grid" / given.model
    runs = [
        Run(given.model, given.dataset, seed, folder, name_of(point), settings_of(point), tested=False)
        for seed in range(FIRST_SEED, FIRST_SEED + given.seeds)
        for point in points
    ]
    failed = run_all([] if given.tables_only else runs, given.data_path, given.again)
    found = load(folder)
    if found:
        text = table(points, found)
        (folder / "README.md").write_text(f"# {given.model} on {given.dataset}, validation\n\n{text}\n")
        print(text)
    print(*failed, sep="\n", end="", file=sys.stderr)
    return 1 if failed else 0


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


def settings_of(point: dict) -> tuple[str, ...]:
    """Arguments of a line's run."""
    return tuple(f"--{key}={'~' if value is None else value}" for key, value in point.items())


def name_of(point: dict) -> str:
    """Folder of a line's run."""
    return ",".join(f"{key}={value}" for key, value in point.items())


def table(points: list[dict], found: dict[str, list[Result]]) -> str:
    """The finished lines, the best first; means over seeds."""
    rows = [
        (point, [result.content for result in results]) for point in points if (results := found.get(name_of(point)))
    ]
    rows.sort(key=lambda row: -mean(content["best_valid_result"]["ndcg@10"] for content in row[1]))
    lines = head(*points[0], "seeds", "valid NDCG@10", "HR@10", "best epoch", "epochs", "core-s an epoch")
    for point, contents in rows:
        lines.append(
            line(
                *point.values(),
                len(contents),
                *(
                    spread([content["best_valid_result"][metric] for content in contents])
                    for metric in ("ndcg@10", "hit@10")
                ),
                *(same([content[key] for content in contents]) for key in ("best_epoch", "epochs")),
                seconds([epoch_seconds(content) for content in contents]),
            )
        )
    commits = same([content["card"]["commit"] for _, contents in rows for content in contents])
    return "\n".join(lines) + f"\n\nCommit {commits}."


def _parse(arguments):
    parser = common_parser(__doc__, seeds=1)
    parser.add_argument("--model", required=True, type=name_of_a_folder)
    parser.add_argument("--grid", type=Path, help="another file of settings (benchmarks/grids/MODEL_on_DATASET.yaml)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
