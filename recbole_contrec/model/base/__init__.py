"""
recbole_contrec.model.base
##########################
What several recommenders share: windows and their targets (:mod:`.targets`), what reads a history (:mod:`.history`), what
is read of users and items (:mod:`.code_tokens`, :mod:`.continuous_tokens`, :mod:`.item_vectors`), and answers in words
(:mod:`.answering`, :mod:`.language`). What generates semantic ids has a package of its own,
:mod:`recbole_contrec.model.semantic_ids`.
"""
