r"""
recbole_contrec.model.tokenrec_beam
###################################

Reference:
    Shashank Rajput et al. "Recommender Systems with Generative Retrieval." in NeurIPS 2023 (codes by beam search).
    https://arxiv.org/abs/2305.05065
    Haohao Qu et al. "TokenRec: Learning to Tokenize ID for LLM-based Generative Recommendations." in IEEE TKDE 2025.
    https://arxiv.org/abs/2406.10450
"""

from collections.abc import Iterator

from torch import Tensor, nn

from recbole_contrec.errors import UserError
from recbole_contrec.interface import Stage
from recbole_contrec.model.base.identifier_generation import IdentifierGenerator
from recbole_contrec.model.base.stacked_tokenrec import TokenRec

# Generated codes must name one item each, and every code needs a position; the rest would be ignored.
_NEEDED = {
    "backbone": "causal",
    "llm": None,
    "item_positions": "each",
    "distinct_codes": True,
    "ranking_weight": 1.0,
    "ranking_negatives": 0,
    "pairwise_weight": 0.0,
    "pairwise_margin": 0.0,
    "projection_size": 0,
    "similarity": "cosine",
    "temperature": 0.05,
    "repeat_bias": False,
}
# What only matters for item vectors that are read.
_OF_IDENTITY = ("item_vectors_init", "train_item_vectors")


class TokenRecBeam(IdentifierGenerator, TokenRec):
    r"""TokenRec that writes the next item code by code: the control for what its retrieval in one pass is worth.

    Tokenizers, codes, backbone and the reading of history are TokenRec's; how codes are trained and searched for is told
    in :class:`~recbole_contrec.model.base.identifier_generation.IdentifierGenerator`.

    NOTE:
        An item's learned vector is read with its last code: earlier, it would give the other codes away.
        There is no repeat bias: a code belongs to many items, so it cannot be told whether it repeats one.
        Items without codes, those that no training history holds, are never generated.

    Axes: B batch, L history length, K tokens, D width.

    Raises:
        ValueError: settings that do not go together.
    """

    folds_items_in = False  # a new item could share its codes with a known one

    def __init__(self, config, dataset):
        for key, value in _NEEDED.items():
            if config[key] != value:
                raise ValueError(f"{key}={config[key]}: codes are generated with {key}={value} only")
        for key in _OF_IDENTITY:
            if not config["id_embedding"] and config[key] != config.settings[key].default:
                raise ValueError(f"{key}={config[key]}: without id_embedding nothing reads item vectors here")
        super().__init__(config, dataset)
        self.improvement = self._new_improvement()
        if not config["id_embedding"]:
            self.item_vectors.requires_grad_(False)  # nothing reads them

    def _new_prompt(self, max_items, pretrained):
        return super()._new_prompt(max_items + 1, pretrained)  # the item that is generated stands there as well

    def _add_head(self, dataset):
        n_tokens, codes = self.item_codes.codes.shape[1], self.item_tokenizer.codebook_size
        self.code_heads = nn.ModuleList(nn.Linear(self.config["hidden_size"], codes) for _ in range(n_tokens))

    def stages(self, dataset) -> Iterator[Stage]:
        """Those of TokenRec, and what describes the items; afterwards every item must have codes of its own."""
        vectors = {}
        yield from self._code_stages(dataset, vectors)
        yield from self._description_stages(dataset, vectors)
        try:
            self._trie = self._new_trie()
        except ValueError as error:
            raise UserError(
                f"{error}: raise codebook_size, which is {self.item_codes.unknown_code} here, or num_codebooks"
            ) from error

    def _start_item_vectors(self, vectors: Tensor) -> None:
        super()._start_item_vectors(vectors)
        self._describe(vectors)

    def _with_identity(self, read: Tensor, items: Tensor) -> Tensor:
        """Add the learned vector of every item [B, L] to its last token in ``read`` [B, L, K, D]."""
        return super()._with_identity(read.flip(2), items).flip(2)
