"""
recbole_contrec.training
########################
The start of a run (:mod:`.start`), the trainers (:mod:`.trainer`), RecBole's evaluation under one rule for seen items
(:mod:`.evaluation`), what a run goes on from (:mod:`.keeping`, :mod:`.state`), whether a checkpoint fits a model and
its data (:mod:`.identity`), and what a run reports (:mod:`.card`, :mod:`.results`).
"""
