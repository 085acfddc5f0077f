"""
recbole_contrec.model.semantic_ids.item_tokenizer
#################################################
From items to semantic ids: a residual-quantised VAE of the item vectors, or another method behind the same setting.
"""

from typing import Any

import torch
from torch import Tensor

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.interface import Report, StageResult
from recbole_contrec.model.parts.fitting import fitted
from recbole_contrec.model.parts.settings import FitSettings
from recbole_contrec.model.semantic_ids.given_ids import names_file
from recbole_contrec.tokenizer import (
    ResidualVQ,
    cluster_codes,
    code_report,
    encode_rows,
    identifier_report,
    product_codes,
    random_codes,
    residual_kmeans,
    seen_rows,
    with_counter,
)

# Settings that a method reads, beside those of all.
_SETTINGS_OF = {
    "rqvae": (
        "token_size",
        "tokenizer_hidden_size",
        "tokenizer_dropout",
        "codebook_weight",
        "commitment_weight",
        "dead_code_threshold",
        "tokenizer_epochs",
        "tokenizer_batch_size",
        "tokenizer_learning_rate",
    ),
    "rkmeans": (),
    "pq": (),
    "clusters": (),
    "random": (),
}
_OF_VECTORS = {"rkmeans": residual_kmeans, "pq": product_codes}  # methods that read vectors, without a network


class ItemTokenizer:
    """Gives items their semantic ids by the method of ``semantic_ids``: codes from coarse to fine, and a last one that
    tells apart what shares all others.

    Axes: N items, K codes with the last one, C codes of a codebook, d width of an item vector.

    Args:
        config: reads ``semantic_ids``, ``num_codebooks``, ``vector_size``, ``seed`` and the settings of the VAE.
        codebook_size: C.
        device: on which the VAE is trained.

    Raises:
        ValueError: settings that do not go together.
        UserError: there is no such method.
    """

    def __init__(self, config: Any, codebook_size: int, device: torch.device):
        self.config = config
        self.method, self.codebook_size, self.device = config["semantic_ids"], codebook_size, device
        if self.method not in _SETTINGS_OF and not names_file(self.method):
            raise UserError(
                f"semantic_ids={self.method}: neither one of {', '.join(_SETTINGS_OF)} nor a .json or .npy file"
                f"{did_you_mean(self.method, _SETTINGS_OF)}"
            )
        if self.method == "pq" and config["vector_size"] < config["num_codebooks"]:
            raise ValueError(
                f"num_codebooks={config['num_codebooks']}: semantic_ids=pq quantises parts of the item vectors, and "
                f"vector_size={config['vector_size']} has fewer"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All that the semantic ids depend on beside the data."""
        return {
            "semantic_ids": self.method,
            "tokens": self.config["num_codebooks"],
            "codebook_size": self.codebook_size,
            "seed": self.config["seed"],
            **{key: self.config[key] for key in _SETTINGS_OF[self.method]},
        }

    def build(self, dataset: Any, vectors: Tensor, report: Report) -> StageResult:
        """Semantic ids, ``codes`` [N, K], and how good they are.

        Args:
            dataset: its training histories are read by ``semantic_ids: clusters``.
            vectors: of the items [N, d].

        Raises:
            UserError: too few codes to tell all items apart.
        """
        health: dict[str, Any] = {}
        if self.method == "rqvae":
            codes, health = self._residual_codes(vectors, report)
        elif self.method == "clusters":
            users, items = dataset.histories.pairs()
            codes = cluster_codes(users, items, dataset.user_num, dataset.item_num, *self._sizes)
        elif self.method == "random":
            codes = random_codes(seen_rows(vectors), *self._sizes)
        else:
            codes = _OF_VECTORS[self.method](vectors, *self._sizes)
        shared = identifier_report(codes, self.codebook_size)["collisions"]
        try:
            codes = with_counter(codes, self.codebook_size)
        except ValueError as error:
            raise UserError(
                f"{error}: raise codebook_size, which is {self.codebook_size} here, or num_codebooks"
            ) from error
        figures = {**health, **identifier_report(codes, self.codebook_size), "collisions_before_last": shared}
        return StageResult({"codes": codes}, figures)

    def quantise(self, vectors: Tensor) -> Tensor:
        """All codes but the last [N, K - 1] of vectors [N, D] of any width: by the same method where it reads vectors,
        else by a residual-quantised VAE."""
        if self.method in _OF_VECTORS:
            return _OF_VECTORS[self.method](vectors, *self._sizes)
        with torch.enable_grad():
            return self._residual_codes(vectors, report=lambda *_: None)[0]

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.config["num_codebooks"], self.codebook_size, self.config["seed"]

    def _residual_codes(self, vectors: Tensor, report: Report) -> tuple[Tensor, dict[str, Any]]:
        """Codes [N, K - 1] of a residual-quantised VAE, and its health."""
        config = self.config
        # A seed of its own: codes must not depend on what else the model drew, nor that on whether they were on disk.
        with torch.random.fork_rng():
            torch.manual_seed(config["seed"])
            tokenizer = ResidualVQ(
                vectors.shape[1],
                config["num_codebooks"],
                self.codebook_size,
                config["token_size"],
                config["tokenizer_hidden_size"],
                config["tokenizer_dropout"],
                config["dead_code_threshold"],
            )
        result = fitted(
            FitSettings.from_config(config),
            tokenizer.to(self.device),
            vectors.to(self.device),
            report,
            code_report,
            codebook_weight=config["codebook_weight"],
            commitment_weight=config["commitment_weight"],
        )
        return encode_rows(tokenizer, vectors), result.report
