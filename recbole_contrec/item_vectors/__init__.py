"""
recbole_contrec.item_vectors
############################
Vectors of items and users before any training of the model: from interactions, from texts, or from a file
(:mod:`.sources`), with a pretrained language model as a reader of the texts (:mod:`.text_encoder`).
"""
