r"""
recbole_contrec.model.tiger
###########################

Reference:
    Shashank Rajput et al. "Recommender Systems with Generative Retrieval." in NeurIPS 2023.
    https://arxiv.org/abs/2305.05065
"""

from collections.abc import Iterator

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_contrec.backbone import CausalDecoder, Layout, Prompt, T5Writer, length_groups
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.sources import vector_stages
from recbole_contrec.model.base.code_table import CodeTable
from recbole_contrec.model.base.fitting import fitted
from recbole_contrec.model.base.identifier_generation import IdentifierGenerator
from recbole_contrec.model.base.settings import FitSettings
from recbole_contrec.model.base.windowed import Targets, Windowed, repeat_rate
from recbole_contrec.storage.stages import Stage, StageResult
from recbole_contrec.tokenizer import (
    ResidualVQ,
    cluster_codes,
    code_report,
    default_codes,
    encode_rows,
    identifier_report,
    product_codes,
    random_codes,
    residual_kmeans,
    seen_rows,
    with_counter,
)

# Settings that a way to identifiers reads, beside those of all.
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
_FEWEST_CODES = 8  # by default: the last code must tell apart all items that share the others
_RARE = 0.01  # share of training targets below which repeats are none


class TIGER(IdentifierGenerator, Windowed, SequentialRecommender):
    r"""TIGER gives every item an identifier (semantic ID), a tuple of codes from coarse to fine, and generates that of the
    next item.

    Identifiers come from a residual-quantised VAE over item vectors, or from another method behind the same setting; a last
    code tells items apart that share all others. A language model reads the codes of the history and writes those of the next
    item; beam search along a trie of the catalogue makes every beam an item.

    NOTE:
        With the causal backbone every code has a position and one pass trains all targets of a window. T5, the
        paper's, reads a history in both directions, so each target costs a pass; ``sampled_prefixes`` draws them.
        Items without codes (nothing in training tells a vector) are never generated.
        Items outside the beam tie behind it, see ``full_sort_predict``.

    Axes: B batch, L history length, K codes of an item with the last one, C codes of a codebook, D width, N items, n targets.

    Raises:
        ValueError: settings that do not go together.
    """

    folds_items_in = False  # a new item could share its codes with a known one

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        _check_settings(config)
        self.config = config
        hidden_size = config["hidden_size"]
        codebook_size = config["codebook_size"] or max(default_codes(self.n_items - 1), _FEWEST_CODES)
        self.n_tokens = config["num_codebooks"] + 1  # the last one tells apart what shares all others
        self.causal = config["backbone"] == "causal"
        self.sampled_prefixes = None if self.causal else config["sampled_prefixes"]
        self.generates_seen = config["generate_seen"]
        if self.generates_seen is None:
            self.generates_seen = config["mask_seen"] is False or repeat_rate(dataset.histories) >= _RARE

        # identifiers, filled by the stages
        self.item_codes = CodeTable(
            self.n_items, self.n_tokens, codebook_size, hidden_size, config["code_reading"] == "sum"
        )

        # what the language model reads, and writes
        buckets = config["user_buckets"]
        self.users = nn.Embedding(buckets, hidden_size) if buckets else None
        if buckets:
            used = torch.zeros(buckets, dtype=torch.bool).index_fill_(
                0, torch.from_numpy(dataset.histories.users).long() % buckets, True
            )
            self.register_buffer("trained_users", used, persistent=False)
        self.prompt = Prompt(hidden_size, 0, int(buckets > 0), self.n_tokens, "each", self.max_seq_length + self.causal)
        sizes = hidden_size, config["n_layers"], config["n_heads"]
        if self.causal:
            self.backbone = CausalDecoder(*sizes, self.prompt.max_positions, config["dropout"], config["inner_size"])
        else:
            self.backbone = T5Writer(*sizes, config["dropout"], config["inner_size"], config["attention_head_size"])
        self.code_heads = nn.ModuleList(nn.Linear(hidden_size, codebook_size) for _ in range(self.n_tokens))

        self.improvement = self._new_improvement()

        # parameters initialization
        if self.users is not None:
            nn.init.normal_(self.users.weight, std=0.1)

    # stages before training

    def stages(self, dataset) -> Iterator[Stage]:
        """Item vectors, then identifiers, then what describes the items; see :mod:`recbole_contrec.storage.stages`."""
        vectors = {}
        yield from vector_stages(self.config, dataset, vectors)
        self._describe(vectors["items"])
        yield self._identifier_stage(dataset, vectors["items"])
        yield from self._description_stages(dataset, vectors)

    def _identifier_stage(self, dataset, vectors: Tensor) -> Stage:
        config, none = self.config, self.item_codes.unknown_code
        method = config["semantic_ids"]
        settings = {
            "semantic_ids": method,
            "tokens": config["num_codebooks"],
            "codebook_size": none,
            "seed": config["seed"],
            **{key: config[key] for key in _SETTINGS_OF[method]},
        }

        def build(report) -> StageResult:
            if method == "rqvae":
                codes, health = self._residual_codes(vectors, report)
            else:
                codes, health = self._plain_codes(method, dataset, vectors), {}
            shared = identifier_report(codes, none)["collisions"]
            try:
                codes = with_counter(codes, none)
            except ValueError as error:
                raise UserError(f"{error}: raise codebook_size, which is {none} here, or num_codebooks") from error
            return StageResult(
                {"codes": codes}, {**health, **identifier_report(codes, none), "collisions_before_last": shared}
            )

        def accept(tensors: dict[str, Tensor]) -> None:
            self.item_codes.codes.copy_(tensors["codes"])
            self._trie = None
            if config["code_vectors_init"] == "vectors":
                self._start_code_vectors(vectors.to(self.device))

        return Stage("identifiers", settings, build, accept)

    def _residual_codes(self, vectors: Tensor, report) -> tuple[Tensor, dict]:
        """Codes [N, K - 1] of a residual-quantised VAE, and its health."""
        config = self.config
        # A seed of its own: the codes must not depend on what else the model drew, nor that on whether they were on disk.
        with torch.random.fork_rng():
            torch.manual_seed(config["seed"])
            tokenizer = ResidualVQ(
                vectors.shape[1],
                config["num_codebooks"],
                self.item_codes.unknown_code,
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

    def _plain_codes(self, method: str, dataset, vectors: Tensor) -> Tensor:
        """Codes [N, K - 1] of a method without a network."""
        sizes = self.config["num_codebooks"], self.item_codes.unknown_code, self.config["seed"]
        if method == "clusters":
            return cluster_codes(*dataset.histories.pairs(), dataset.user_num, dataset.item_num, *sizes)
        if method == "random":
            return random_codes(seen_rows(vectors), *sizes)
        return (residual_kmeans if method == "rkmeans" else product_codes)(vectors, *sizes)

    def _start_code_vectors(self, vectors: Tensor) -> None:
        """Put the vectors of codes, read and scored, where the items [N, d] lie that have them."""
        width = self.config["hidden_size"]
        if vectors.shape[1] != width:  # a random map keeps angles, about
            drawn = torch.randn(vectors.shape[1], width, generator=torch.Generator().manual_seed(self.config["seed"]))
            vectors = vectors @ drawn.to(vectors) / vectors.shape[1] ** 0.5
        self.item_codes.start_at(vectors)
        self.score_by(vectors)

    def quantised(self, vectors: Tensor) -> Tensor:
        """By the method of ``identifiers`` where it reads vectors, else by a residual-quantised VAE."""
        method = self.config["semantic_ids"]
        if method in ("rkmeans", "pq"):
            return self._plain_codes(method, None, vectors)
        with torch.enable_grad():
            return self._residual_codes(vectors, report=lambda *_: None)[0]

    # from a history to states before codes

    def forward(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States before every code of every item but the first [B, L, K, D]; see :meth:`code_states`. With the causal
        backbone alone: T5 reads one history a target."""
        return self.code_states(item_seq, user)

    def _read(self, item_seq: Tensor, user: Tensor) -> Layout:
        """The prompts of histories [B, L] and users [B]."""
        return self.prompt(None if self.users is None else self._read_users(user), self.item_codes(item_seq))

    def _read_users(self, user: Tensor) -> Tensor:
        """The vectors of users [B], [B, 1, D]; for somebody new (0) the mean of those that were trained."""
        new = self.users.weight[self.trained_users].mean(0)  # [D]
        return torch.where((user == 0)[:, None], new, self.users(user % self.users.num_embeddings))[:, None]

    def _targets(self, interaction) -> Targets:
        if self.causal:
            return super()._targets(interaction)
        targets, user = self._targets_without_states(interaction), interaction[self.USER_ID]
        prefixes, length = targets.histories(), targets.place + 1  # [n, L], [n]
        written = self.item_codes(targets.items)[:, :-1]  # [n, K - 1, D]
        states, order = [], length_groups(length)
        for rows in order:
            prompt = self._read(prefixes[rows, : int(length[rows[0]])], user[targets.row[rows]])
            encoded = self.backbone.encode(prompt.vectors, prompt.last(length[rows]) + 1)
            states.append(self.backbone.decode(*encoded, written[rows]))  # [b, K, D]
        return targets._replace(states=torch.cat(states)[torch.cat(order).argsort()])

    # backbone

    def states_of_codes(self, prompts: Tensor, codes: Tensor) -> Tensor:
        if self.causal:
            return super().states_of_codes(prompts, codes)
        return self.backbone.decode(*self.backbone.encode(prompts), self.item_codes.read(codes)[:, :-1])

    def state_behind(self, prompts: Tensor) -> Tensor:
        if self.causal:
            return super().state_behind(prompts)
        return self.backbone.decode(*self.backbone.encode(prompts), prompts[:, :0])[:, 0]

    # scores

    def _never_generated(self, interaction) -> Tensor | None:
        never = super()._never_generated(interaction)
        return never if self.generates_seen or never is not None else interaction[self.ITEM_SEQ]


def _check_settings(config) -> None:
    """Settings that would be ignored.

    Raises:
        ValueError: names the settings.
    """
    if config["semantic_ids"] == "pq" and config["vector_size"] < config["num_codebooks"]:
        raise ValueError(
            f"num_codebooks={config['num_codebooks']}: semantic_ids=pq quantises parts of the item vectors, and "
            f"vector_size={config['vector_size']} has fewer"
        )
    of_t5 = [key for key in ("sampled_prefixes", "attention_head_size") if config[key] != config.settings[key].default]
    if of_t5 and config["backbone"] == "causal":
        raise ValueError(f"{', '.join(of_t5)}: for backbone=t5 only")
