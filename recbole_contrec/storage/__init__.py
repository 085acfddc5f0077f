"""
recbole_contrec.storage
#######################
What is kept on disk and read again: checkpoints without pickled code (:mod:`.checkpoint`) and the types of their JSON
records (:mod:`.record`), finished stages (:mod:`.stages`), and the folder of a run (:mod:`.folders`, :mod:`.lock`).
"""
