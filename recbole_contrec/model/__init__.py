"""
recbole_contrec.model
#####################
The recommenders, a module each: RecBole's methods over named parts. What several of them hold stands in :mod:`.parts`,
and what generates semantic ids in :mod:`.semantic_ids`.
"""
