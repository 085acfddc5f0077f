"""Tokenizers: vectors of users and items become K tokens for a language model, and come back.

Knows torch, numpy, scipy and scikit-learn only. The way through it::

    vectors = standardise(svd_vectors(users, items, n_users, n_items, size=64).items)  # [N, d]
    model = SigmaVAE(d=64)
    fit_tokenizer(model, vectors, mean_weight=0.01, twins_weight=0.0)
    tokens = model.encode(vectors)                                                     # [N, K, D]

:class:`SigmaVAE` gives continuous tokens, :class:`MaskedVQ` and
:class:`ResidualVQ` numbers of codes; all are fitted by the same loop. :mod:`.identifiers` gives codes without a
network.
"""

from .code_files import CodesOfFile, read_codes, write_codes
from .collaborative import (
    CollaborativeVectors,
    LoadedVectors,
    history_means,
    load_vectors,
    save_vectors,
    seen_rows,
    standardise,
    svd_vectors,
)
from .fit import FitReport, Split, fit_tokenizer, reconstruction_error, split_rows
from .fold_in import FoldIn, ItemFoldIn
from .identifiers import cluster_codes, product_codes, random_codes, residual_kmeans, with_counter
from .masked_vq import (
    MaskedVQ,
    Quantized,
    QuantizerLoss,
    collision_rate,
    default_codes,
    distinct_codes,
    encode_rows,
)
from .report import CodeHealth, TokenizerHealth, code_report, health_report, identifier_report
from .residual_vq import ResidualVQ
from .sigma_vae import SigmaVAE, Tokenized, TokenizerLoss, twins_redundancy
from .whole_vector import WholeVector

__all__ = [
    "CodeHealth",
    "CodesOfFile",
    "CollaborativeVectors",
    "FitReport",
    "FoldIn",
    "ItemFoldIn",
    "LoadedVectors",
    "MaskedVQ",
    "Quantized",
    "QuantizerLoss",
    "ResidualVQ",
    "SigmaVAE",
    "Split",
    "Tokenized",
    "TokenizerHealth",
    "TokenizerLoss",
    "WholeVector",
    "cluster_codes",
    "code_report",
    "collision_rate",
    "default_codes",
    "distinct_codes",
    "encode_rows",
    "fit_tokenizer",
    "health_report",
    "history_means",
    "identifier_report",
    "load_vectors",
    "product_codes",
    "random_codes",
    "read_codes",
    "reconstruction_error",
    "residual_kmeans",
    "save_vectors",
    "seen_rows",
    "split_rows",
    "standardise",
    "svd_vectors",
    "twins_redundancy",
    "with_counter",
    "write_codes",
]
