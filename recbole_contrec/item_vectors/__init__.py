"""
recbole_contrec.item_vectors
############################
Vectors of items and users before any training of the model.

- :mod:`.sources`: what the settings ask for, checked, and the stages that make it,
- :mod:`.lightgcn`: vectors from interactions, beside the truncated SVD of :mod:`recbole_contrec.tokenizer`,
- :mod:`.words` and :mod:`.text_encoder`: vectors of texts, without a language model and by one,
- :mod:`.pca`: the directions in which these differ, whitened or not.
"""
