"""
benchmarks
##########
What is measured, and how. The modules of this folder are commands, ``python benchmarks/compare.py`` or
``python -m benchmarks.compare``; :mod:`.lib` runs and measures, :mod:`.report` makes tables, pictures and texts of it.
"""
