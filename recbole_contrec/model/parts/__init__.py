"""
recbole_contrec.model.parts
###########################
What several recommenders hold:

- :mod:`.targets`: which positions of a batch are targets,
- :mod:`.continuous_tokens`, :mod:`.code_tokens` (over :mod:`.code_table`), :mod:`.learned_vectors`, :mod:`.language`:
  what a language model reads of users and items,
- :mod:`.instructions`, :mod:`.history`: what stands in front of a history, and what reads it,
- :mod:`.answering`: has the language model say what comes next,
- :mod:`.text_similarity`: what item texts add to the scores,
- :mod:`.settings`, :mod:`.pretrained`, :mod:`.fitting`: how these parts are made and fitted,
- :mod:`.contrec_checks`, :mod:`.unread`: settings that contradict each other, or that nothing would read.

A new part says in its constructor what it reads, and gets its settings from a small object in :mod:`.settings`.
"""
