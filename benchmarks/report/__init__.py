"""
benchmarks.report
#################
From result files to Markdown tables and pictures, a module for every command that has its own; :mod:`.tables` is of
:mod:`benchmarks.compare`, and most others build on it.
"""
