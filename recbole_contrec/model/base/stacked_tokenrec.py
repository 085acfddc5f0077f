r"""
recbole_contrec.model.tokenrec
##############################

Reference:
    Haohao Qu et al. "TokenRec: Learning to Tokenize ID for LLM-based Generative Recommendations." in IEEE TKDE 2025.
    https://arxiv.org/abs/2406.10450
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_contrec.backbone import (
    CausalDecoder,
    EncoderDecoder,
    Instructions,
    Layout,
    PretrainedModel,
    Prompt,
    Vocabulary,
    VocabularyInstructions,
)
from recbole_contrec.model.base.code_table import CODE_RMS, CodeTable
from recbole_contrec.model.base.generative import GenerativeRecommender, room_for_history
from recbole_contrec.model.base.pretrained import changed, check_language_model
from recbole_contrec.model.base.windowed import Targets, repeat_rate
from recbole_contrec.retrieval import Retrieval, pairwise_cosine_loss
from recbole_contrec.storage.stages import Stage, StageResult
from recbole_contrec.tokenizer import (
    MaskedVQ,
    code_report,
    collision_rate,
    default_codes,
    distinct_codes,
    encode_rows,
    seen_rows,
)


class TokenRecLoss(NamedTuple):
    """Weighted terms; the trainer minimises their sum and logs each by its name."""

    ranking: Tensor
    pairwise: Tensor


class TokenRec(GenerativeRecommender):
    r"""TokenRec reads users and items as discrete codes and generates the next preference in one pass.

    A masked vector quantiser turns collaborative vectors into K codes a user and an item; each code is a new word of a
    language model, which reads one of several instructions, the user's codes and the history; its states
    are projected to the space of the item vectors, and similarity to these ranks the catalogue: nothing is decoded word
    by word, and there is no beam.

    NOTE:
        What the paper leaves open or what ranks badly as published is decided in ``properties/model/TokenRec.yaml``
        (ranks best) and ``TokenRec-paper.yaml`` (the recipe as far as it is known); both say where and why.
        The instruction stands in front of the codes instead of around them, so that one pass trains every position.

    Axes: B batch, L history length, K tokens, C codes, P states of an answer, D width of the language model,
    d width of an item vector, N items, n targets of a batch.

    Raises:
        ValueError: settings that do not go together.
        UserError: a pretrained language model that cannot be had, or is of another kind.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        _check_settings(config)
        self.config = config
        self.n_users = dataset.num(self.USER_ID)
        self.causal = config["backbone"] == "causal"  # every position of a window then has a state of its own
        self.sampled_prefixes = None if self.causal else config["sampled_prefixes"]
        pretrained = self._pretrained()
        self.hidden_size = hidden_size = pretrained.hidden_size if pretrained else config["hidden_size"]
        size = config["vector_size"]
        n_tokens, n_user_tokens = config["num_codebooks"], config["num_user_codebooks"]

        # tokenizers, filled by the stages and frozen; the codes that they gave
        self.item_tokenizer = self._new_tokenizer(n_tokens, self.n_items - 1)
        self.item_codes = CodeTable(self.n_items, n_tokens, self.item_tokenizer.codebook_size, hidden_size)
        self.user_tokenizer = self._new_tokenizer(n_user_tokens, self.n_users - 1) if n_user_tokens else None
        self.user_fold_in = self._new_user_fold_in(n_user_tokens)
        if self.user_tokenizer is not None:
            self.user_codes = CodeTable(self.n_users, n_user_tokens, self.user_tokenizer.codebook_size, hidden_size)

        # item vectors: the space in which preferences are generated and retrieved
        self.item_vectors = nn.Embedding(self.n_items, size)
        self.item_vectors.weight.requires_grad_(config["train_item_vectors"])
        # of one width, the vectors are read as they are: what is retrieved and what is read stay tied
        self.identity_adapter = nn.Linear(size, hidden_size, bias=False) if size != hidden_size else nn.Identity()

        # language model and the way to the next item
        self.prompt = self._new_prompt(self.max_seq_length, pretrained)
        if pretrained and self.causal:
            self.room = room_for_history(self.prompt, min(self.prompt.max_positions, pretrained.max_positions), 0)
        self.backbone = pretrained or self._new_backbone()
        self._add_head(dataset)

        # parameters initialization
        nn.init.normal_(self.item_vectors.weight, std=0.02)

    def _new_tokenizer(self, n_tokens, rows):
        config = self.config
        codebook_size = config["codebook_size"] or default_codes(rows)
        if codebook_size > rows:
            raise ValueError(
                f"codebook_size={codebook_size}: a codebook cannot have more codes than the table has rows ({rows})"
            )
        tokenizer = MaskedVQ(
            config["vector_size"],
            n_tokens,
            codebook_size,
            config["token_size"],
            config["tokenizer_hidden_size"],
            config["token_mask_ratio"],
            config["tokenizer_dropout"],
            config["dead_code_threshold"],
            config["code_gradient"],
        )
        return tokenizer.requires_grad_(False).eval()

    def _pretrained(self):
        """The pretrained language model that the settings name, None for the compact ones."""
        if self.causal:
            return None
        return None

    def _new_prompt(self, max_items, pretrained: PretrainedModel | None):
        config = self.config
        return Prompt(
            self.hidden_size,
            0,
            config["num_user_codebooks"],
            config["num_codebooks"],
            config["item_positions"],
            max_items,
            self._wordings(pretrained),
            token_scale=pretrained.word_size / CODE_RMS if pretrained else 1.0,
        )

    def _wordings(self, pretrained):
        config = self.config
        if not config["instructions"]:
            return None
        if pretrained is None:
            return Instructions(config["instructions"], config["held_out_instruction"], self.hidden_size)
        return VocabularyInstructions(
            config["instructions"],
            config["held_out_instruction"],
            Vocabulary(pretrained.vocabulary, pretrained.end_id),
            lambda numbers: self.backbone.read(numbers),
            self.hidden_size,
        )

    def _new_backbone(self):
        config = self.config
        sizes = config["hidden_size"], config["n_layers"], config["n_heads"]
        if self.causal:
            return CausalDecoder(*sizes, self.prompt.max_positions, config["dropout"], config["inner_size"])
        return EncoderDecoder(*sizes, config["decoder_query_tokens"], config["dropout"], config["inner_size"])

    def _add_head(self, dataset):
        config = self.config
        states = 1 if self.causal else self.backbone.decoder_query_tokens
        self.projection = projection(
            states * self.hidden_size, config["projection_size"], config["vector_size"], config["dropout"]
        )
        self.retrieval = Retrieval(
            config["similarity"],
            config["temperature"],
            config["label_smoothing"],
            repeat_rate(dataset.histories) if config["repeat_bias"] else None,
        )

    # stages before training

    def stages(self, dataset) -> Iterator[Stage]:
        """Item vectors, then the tokenizers; see :mod:`recbole_contrec.storage.stages`."""
        yield from self._code_stages(dataset, {})

    def _code_stages(self, dataset, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """The same, with what :meth:`vector_stages` finds in ``vectors``."""
        yield from self.vector_stages(dataset, vectors)
        self._start_item_vectors(vectors["items"])
        yield self._code_stage("item", self.item_tokenizer, self.item_codes, vectors["items"])
        if self.user_tokenizer is not None:
            yield self._code_stage("user", self.user_tokenizer, self.user_codes, vectors["users"])

    def _code_stage(self, name: str, tokenizer: MaskedVQ, table: CodeTable, vectors: Tensor) -> Stage:
        """Fit a tokenizer to ``vectors`` [rows, d] and keep the codes that it gives them."""
        keys = (
            "token_size",
            "tokenizer_hidden_size",
            "tokenizer_dropout",
            "token_mask_ratio",
            "codebook_weight",
            "commitment_weight",
            "dead_code_threshold",
            "code_gradient",
            "distinct_codes",
            "tokenizer_epochs",
            "tokenizer_batch_size",
            "tokenizer_learning_rate",
            "seed",
        )
        settings = {
            **self._pick(*keys),
            "tokenizer": "masked VQ",
            "tokens": tokenizer.n_tokens,
            "codebook_size": tokenizer.codebook_size,
        }

        def build(report) -> StageResult:
            result = self._fit(
                tokenizer,
                vectors,
                report,
                code_report,
                codebook_weight=self.config["codebook_weight"],
                commitment_weight=self.config["commitment_weight"],
            )
            codes = (distinct_codes if self.config["distinct_codes"] else encode_rows)(tokenizer, vectors)
            left = collision_rate(codes[seen_rows(vectors)])
            return StageResult({**result.tensors, "codes of rows": codes}, {**result.report, "collisions_left": left})

        def accept(tensors: dict[str, Tensor]) -> None:
            weights = {key: tensor for key, tensor in tensors.items() if key != "codes of rows"}
            tokenizer.load_state_dict(weights)
            table.codes.copy_(tensors["codes of rows"])

        return Stage(f"{name} tokenizer", settings, build, accept)

    # RecBole's methods, beside those of the base class

    def forward(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States after every item [B, L, D] for histories [B, L] padded at the end and users [B]. With the causal
        backbone alone: T5 gives one answer a history."""
        prompt = self._read(item_seq, user)
        return prompt.after_items(self.backbone(prompt.vectors))  # [B, L, D]

    def calculate_loss(self, interaction) -> TokenRecLoss:
        """Mean loss over the targets of a batch: every position of a window with the causal backbone, the last one and
        some drawn ones with T5, or the one of RecBole's own rows."""
        targets = self._targets(interaction)
        preference = self.projection(targets.states)  # [n, d]
        table, config = self.item_vectors.weight, self.config  # [N, d]
        ranking = pairwise = preference.new_zeros(())
        if config["ranking_weight"]:
            ranking = self.retrieval.ranking_loss(
                preference,
                table,
                targets.items,
                config["ranking_negatives"],
                targets.histories() if config["repeat_bias"] else None,
            )
        if config["pairwise_weight"]:
            pairwise = pairwise_cosine_loss(preference, table, targets.items, config["pairwise_margin"])
        return TokenRecLoss(config["ranking_weight"] * ranking, config["pairwise_weight"] * pairwise)

    # beyond RecBole's contract

    @torch.no_grad()
    def _preferences(self, conditions: Tensor) -> Tensor:
        """Preference vectors [B, d] for states [B, D] or [B, P D]."""
        return self.projection(conditions)

    def add_items(self, count: int) -> None:
        super().add_items(count)
        rows = self.item_codes.codes.new_full((count, self.config["num_codebooks"]), self.item_codes.unknown_code)
        self.item_codes.codes = torch.cat([self.item_codes.codes, rows])

    def _set_item_tokens(self, items: Tensor, vectors: Tensor) -> None:
        """Codes of some items [m] from their vectors [m, d]."""
        self.item_codes.codes[items] = self.item_tokenizer.encode(vectors)

    def _targets(self, interaction) -> Targets:
        """All targets of a batch and the states before them."""
        if self.causal:
            return super()._targets(interaction)
        targets, user = self._targets_without_states(interaction), interaction[self.USER_ID]
        prefixes = targets.histories()  # [n, L]
        if self.config["shuffle_history"]:
            prefixes = shuffled(prefixes)
        return targets._replace(states=self._last_states(prefixes, targets.place + 1, user[targets.row]))  # [n, P D]

    def _state_after(self, prompt: Layout, length: Tensor) -> Tensor:
        if self.causal:
            return super()._state_after(prompt, length)  # [b, D]
        return self.backbone(prompt.vectors, prompt.last(length) + 1).flatten(1)  # [b, P D]

    def _read_items(self, items: Tensor) -> Tensor:
        """What the language model reads for some items: [B, L] -> [B, L, K, D]."""
        return self._with_identity(self.item_codes(items), items)

    def _read_users(self, users: Tensor, item_seq: Tensor) -> Tensor | None:
        """Tokens of some users [B, K, D] with histories [B, L]. Users who were not in training are folded in; where
        nothing of their history is known, and for some users in training, the tokens are the learned stand-in."""
        if self.user_tokenizer is None:
            return None
        codes = self.user_codes.codes[users]  # [B, K]
        if self.training:
            # The codes of a training user were computed from his training targets as well; reading them every
            # time, the model would learn to look the answer up instead of reading the history.
            hidden = torch.rand(len(users), device=users.device) < self.config["user_token_dropout"]
            codes = codes.masked_fill(hidden[:, None], self.user_codes.unknown_code)
        elif self.user_fold_in is not None:
            new = (codes[:, 0] == self.user_codes.unknown_code).nonzero().squeeze(1)  # [n]
            vectors = self.user_fold_in(item_seq[new])  # [n, d]
            some = (vectors != 0).any(1)
            codes[new[some]] = self.user_tokenizer.encode(vectors[some])
        return self.user_codes.read(codes)


def projection(inputs: int, width: int, outputs: int, dropout: float) -> nn.Module:
    """From states to preference vectors: one hidden layer of this width, or a linear map where it is 0."""
    if not width:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs))


def shuffled(item_seq: Tensor) -> Tensor:
    """Histories [n, L] with the items of each row in random order, the padding still at the end."""
    order = torch.rand(item_seq.shape, device=item_seq.device).masked_fill(item_seq == 0, 2.0).argsort(1)
    return item_seq.gather(1, order)


def _check_settings(config) -> None:
    """Settings that would be ignored, or train nothing.

    Raises:
        ValueError: names the settings.
    """
    if not config["ranking_weight"] and not config["pairwise_weight"]:
        raise ValueError("ranking_weight and pairwise_weight are both 0: nothing would be learned")
    if config["pairwise_weight"] and config["similarity"] != "cosine":
        raise ValueError(f"pairwise_weight trains a cosine: similarity={config['similarity']} cannot retrieve by it")
    if config["repeat_bias"] and not config["ranking_weight"]:
        raise ValueError("repeat_bias is learned by the ranking loss: it needs ranking_weight above 0")
    if config["shuffle_history"] and config["backbone"] == "causal":
        raise ValueError("shuffle_history needs backbone=t5: in one causal pass every item is also the next target")
    if not config["train_item_vectors"] and config["item_vectors_init"] == "random":
        raise ValueError("train_item_vectors=False would keep random vectors: set item_vectors_init=vectors")
    check_language_model(config)
    if config["llm"] is not None and changed(config, "decoder_query_tokens"):
        raise ValueError("decoder_query_tokens is of the compact T5: a pretrained one reads the words of answer_prefix")
    if (config["llm"] is None or config["backbone"] == "causal") and changed(config, "answer_prefix"):
        raise ValueError("answer_prefix needs backbone=t5 and llm: it is what the decoder of a pretrained T5 reads")
