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

from benchmarks.lib.checkout import ROOT
from benchmarks.report.marked import with_tables

TEXTS = ROOT / "README.md", *(ROOT / "docs" / name for name in ("index.md", "results.md"))


if __name__ == "__main__":
    for text in TEXTS:
        text.write_text(with_tables(text.read_text()))
