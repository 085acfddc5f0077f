"""
benchmarks.readme
#################
Writes the tables of ``README.md`` and ``docs/`` anew from the result files:

    python benchmarks/readme.py

What stands between which marks says :mod:`benchmarks.report.marked`.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse

from benchmarks.lib.checkout import ROOT
from benchmarks.report.marked import with_tables

TEXTS = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("index.md", "results.md", "scale.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
)


def main(arguments: list[str] | None = None) -> None:
    """Renew the tables; there are no options beside ``--help``."""
    argparse.ArgumentParser(description="Write the tables of README.md and docs/ anew from the results.").parse_args(
        arguments
    )
    for text in TEXTS:
        text.write_text(with_tables(text.read_text()))


if __name__ == "__main__":
    main()
