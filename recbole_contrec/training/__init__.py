"""
recbole_contrec.training
########################
A run: stages before training (:mod:`.stages`), the trainers, RecBole's evaluation under one rule for seen items
(:mod:`.evaluation`), checkpoints without pickled code (:mod:`.checkpoint`, :mod:`.identity`), and what a run reports
(:mod:`.card`, :mod:`.results`).
"""
