"""
benchmarks.peer
###############
What runs in the environment of another recommender: it reads the training histories of our split, trains, and leaves
the ranks of the targets. Nothing here imports this package, RecBole or the rest of :mod:`benchmarks`.
"""
