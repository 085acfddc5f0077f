"""
recbole_contrec.model.parts
###########################
What several recommenders hold:

- :mod:`.targets`: which positions of a batch are targets,
- :mod:`.continuous_tokens`, :mod:`.code_tokens` (over :mod:`.code_table`), :mod:`.learned_vectors`, :mod:`.language`:
  what a language model reads of users and items,
- :mod:`.instructions`, :mod:`.history`: what stands in front of a history, and what reads it,
- :mod:`.answering`: has the language model say what comes next,
- :mod:`.settings`, :mod:`.pretrained`, :mod:`.fitting`, :mod:`.contrec_checks`: how these parts are made and fitted.
"""
