"""
benchmarks.lib
##############
Running and measuring: processes of their own for runs (:mod:`.runs`), what is there against what is asked for
(:mod:`.asked`), clocks and counters (:mod:`.measuring`, :mod:`.flops`), paired tests (:mod:`.significance`).
"""
