r"""
recbole_contrec.model.tiger
###########################

Reference:
    Shashank Rajput et al. "Recommender Systems with Generative Retrieval." in NeurIPS 2023.
    https://arxiv.org/abs/2305.05065
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_contrec.backbone import CausalDecoder, PretrainedDecoder, Prompt, T5Writer
from recbole_contrec.interface import ITEMS, Stage
from recbole_contrec.item_vectors.sources import vector_stages
from recbole_contrec.model.parts.code_table import CODE_RMS, CodeTable
from recbole_contrec.model.parts.history import HistoryEncoder
from recbole_contrec.model.parts.instructions import instructions_of
from recbole_contrec.model.parts.pretrained import check_language_model, pretrained_model
from recbole_contrec.model.parts.settings import DecoderSettings, PretrainedSettings
from recbole_contrec.model.parts.targets import TrainingWindows, repeat_rate
from recbole_contrec.model.semantic_ids import (
    CodeDecoder,
    CodeDecoderSettings,
    GivenIds,
    ItemTokenizer,
    SemanticIdRecommender,
    UserBuckets,
    check_self_improvement,
    code_heads,
    names_file,
    positions_of,
    self_improvement_of,
)
from recbole_contrec.tokenizer import default_codes

_FEWEST_CODES = 8  # by default: the last code must tell apart all items that share the others
_RARE = 0.01  # share of training targets below which repeats are none


class TIGER(SemanticIdRecommender):
    r"""TIGER gives every item a semantic id, a tuple of codes from coarse to fine, and generates that of the next item.

    Semantic ids come from a residual-quantised VAE over item vectors, or from another method behind the same setting; a
    last code tells items apart that share all others. A language model reads the codes of the history and writes those
    of the next item; beam search along a trie of the catalogue makes every beam an item.

    Its parts, in the order in which they work:

    - ``item_tokenizer``: gives the items their semantic ids, before training; or ``given_ids``, which come from a file,
    - ``item_codes``, ``users``: what is read of items and users,
    - ``history``: lays it out in a ``prompt`` and reads it with the ``backbone``,
    - ``decoder``: writes the codes of the next item, scored by ``code_heads``,
    - ``improvement``: of the semantic ids (SIIT); None without ``self_improve``.

    RecBole's methods by these parts are those of
    :class:`~recbole_contrec.model.semantic_ids.recommender.SemanticIdRecommender`.

    NOTE:
        With the causal backbone every code has a position and one pass trains all targets of a window. T5, the
        paper's, reads a history in both directions, so each target costs a pass; ``sampled_prefixes`` draws them.
        A pretrained causal model (``llm``) reads codes as new words, as large as its own, and scores them by new heads.
        Items without codes (nothing in training tells a vector, or the file does not have them) are never generated.
        Items outside the beam tie behind it, see ``full_sort_predict``.

    Axes: B batch, L history length, K codes of an item with the last one, C codes of a codebook, D width, N items.

    Raises:
        ValueError: settings that do not go together.
        UserError: a pretrained language model or a file of semantic ids that cannot be had, or is of another kind.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)

        # load parameters info
        self.check_settings(config)
        self.config = config  # also read by the stages before training
        causal = config["backbone"] == "causal"
        pretrained = pretrained_model(PretrainedSettings.from_config(config), PretrainedDecoder)
        hidden_size = pretrained.hidden_size if pretrained else config["hidden_size"]
        if names_file(config["semantic_ids"]):
            self.given_ids = GivenIds(config, dataset, without_last=True)
        codebook_size = config["codebook_size"] or max(default_codes(self.n_items - 1), _FEWEST_CODES)
        num_codebooks = config["num_codebooks"] + 1  # the last one tells apart what shares all others
        self.item_tokenizer = ItemTokenizer(config, codebook_size, self.device)
        self.windows = TrainingWindows(self, None if causal else config["sampled_prefixes"])
        self.whole_windows = TrainingWindows(self)
        self.generates_seen = config["generate_seen"]
        if self.generates_seen is None:
            self.generates_seen = config["mask_seen"] is False or repeat_rate(dataset.histories) >= _RARE

        # what the language model reads; the stages fill in the codes
        buckets, cumulative = config["user_buckets"], config["code_reading"] == "sum"
        self.item_codes = CodeTable(self.n_items, num_codebooks, codebook_size, hidden_size, cumulative)
        self.users = UserBuckets(buckets, hidden_size, dataset.histories) if buckets else None
        self.prompt = Prompt(
            hidden_size,
            soft_prompt_length=0,
            n_user_tokens=int(buckets > 0),
            n_item_tokens=num_codebooks,
            item_positions="each",
            max_items=self.max_seq_length + causal,  # a causal prompt holds the item that is generated as well
            instructions=instructions_of(config, hidden_size, pretrained),
            token_scale=pretrained.word_size / CODE_RMS if pretrained else 1.0,
        )

        # the language model
        sizes = vars(DecoderSettings.from_config(config))
        self.backbone: CausalDecoder | PretrainedDecoder | T5Writer
        if causal:
            room = positions_of(config, self.prompt, pretrained)
            self.backbone = pretrained or CausalDecoder(**sizes, max_positions=room)
        else:
            self.backbone = T5Writer(**sizes, attention_head_size=config["attention_head_size"])
        self.history = HistoryEncoder(self.prompt, self.backbone, self.item_codes, self.users)

        # what writes codes
        self.code_heads = code_heads(self.item_codes)
        settings = CodeDecoderSettings.from_config(config, pretrained)
        self.decoder = CodeDecoder(self.history, self.item_codes, self.code_heads, settings)
        self.improvement = self_improvement_of(
            config, dataset, num_codebooks, hidden_size, pretrained, self.prompt.token_scale
        )

        # parameters initialization
        if self.users is not None:
            nn.init.normal_(self.users.weight, std=0.1)

    # before anything is loaded, see :mod:`recbole_contrec.interface`

    @staticmethod
    def check_settings(config: Any) -> None:
        """See :class:`~recbole_contrec.interface.ChecksSettings`."""
        _check_backbone(config)

    # stages before training

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, then semantic ids, then what describes the items; see :mod:`recbole_contrec.storage.stages`."""
        found: dict[str, Tensor] = {}
        yield from vector_stages(self.config, dataset, found)
        vectors = found["items"]  # [N, d]

        def accept(codes: Tensor) -> None:
            self.decoder.assign(codes)
            if self.config["code_vectors_init"] == "vectors":
                self.decoder.start_at(self._at_hidden_size(vectors.to(self.device)))

        if self.given_ids is not None:
            yield self.given_ids.stage(dataset, self.item_codes, accept)
        else:
            yield Stage(
                "identifiers",
                self.item_tokenizer.settings,
                lambda report: self.item_tokenizer.build(dataset, vectors, report),
                lambda tensors: accept(tensors["codes"]),
            )
        yield from self._description_stages(dataset, found)

    def _at_hidden_size(self, vectors: Tensor) -> Tensor:
        """Vectors [N, d] at the width of the language model [N, D]; a random map keeps angles, about."""
        width = self.item_codes.words.embedding_dim
        if vectors.shape[1] == width:
            return vectors
        drawn = torch.randn(vectors.shape[1], width, generator=torch.Generator().manual_seed(self.config["seed"]))
        return vectors @ drawn.to(vectors) / vectors.shape[1] ** 0.5

    def rows(self) -> dict[str, str]:
        """See :class:`~recbole_contrec.interface.HasRows`."""
        return {"item_codes.codes": ITEMS}

    # self-improvement

    def quantise(self, vectors: Tensor) -> Tensor:
        """By the method of ``semantic_ids`` where it reads vectors, else by a residual-quantised VAE."""
        return self.item_tokenizer.quantise(vectors)


def _check_backbone(config: Any) -> None:
    """Settings that would be ignored.

    Raises:
        ValueError: names the settings.
    """
    of_t5 = [key for key in ("sampled_prefixes", "attention_head_size") if config[key] != config.settings[key].default]
    if of_t5 and config["backbone"] == "causal":
        raise ValueError(f"{', '.join(of_t5)}: for backbone=t5 only")
    if config["llm"] is not None and config["backbone"] != "causal":
        raise ValueError("llm: the T5 of this model is trained from scratch; a pretrained model needs backbone=causal")
    check_language_model(config)
    check_self_improvement(config)
