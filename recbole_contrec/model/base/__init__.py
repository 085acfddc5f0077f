"""
recbole_contrec.model.base
##########################
What several recommenders share: windows and their targets (:mod:`.windowed`), the way from a history to a preference and its
scores (:mod:`.generative`), generated answers (:mod:`.text_generation`, :mod:`.language`), generated identifiers
(:mod:`.identifier_generation`, :mod:`.code_table`) and how these improve themselves (:mod:`.self_improvement`).
"""
