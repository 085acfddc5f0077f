r"""
recbole_contrec.model.tokenrec_beam
################################################

Reference:
    Shashank Rajput et al. "Recommender Systems with Generative Retrieval." in NeurIPS 2023 (codes by beam search).
    https://arxiv.org/abs/2305.05065
    Haohao Qu et al. "TokenRec: Learning to Tokenize ID for LLM-based Generative Recommendations." in IEEE TKDE 2025.
    https://arxiv.org/abs/2406.10450
"""

from typing import Iterator, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone import Layout, length_groups
from recbole_contrec.decoding import Beams, CodeTrie, beam_search
from recbole_contrec.errors import UserError
from recbole_contrec.model.tokenrec import TokenRec
from recbole_contrec.model.windowed import Targets
from recbole_contrec.stages import Stage

# Generated codes must name one item each, and every code needs a position; the rest would be ignored.
_NEEDED = {"backbone": "causal", "llm": None, "item_positions": "each", "distinct_codes": True, "ranking_weight": 1.0,
           "ranking_negatives": 0, "pairwise_weight": 0.0, "projection_size": 0, "similarity": "cosine",
           "repeat_bias": False}


class TokenRecBeamLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    codes: Tensor


class TokenRecBeam(TokenRec):
    r"""TokenRec that writes the next item code by code: the control for what its retrieval in one pass is worth.

    Tokenizers, codes, backbone and the reading of history are TokenRec's. Every code has a position, so what stands in
    the prompt after a history is what a decoder would have written, and one causal pass trains all K codes of all
    targets. In evaluation the history is read once; a beam search writes the rest, K - 1 positions a beam, along a
    trie of the catalogue.

    NOTE:
        An item's learned vector is read with its last code: earlier, it would give the other codes away.
        There is no repeat bias: a code belongs to many items, so it cannot be told whether it repeats one.
        Items without codes, those that no training history holds, are never generated.

    Axes: B batch, L history length, K tokens, C codes, D width, N items, W beams, n targets of a batch.

    Raises:
        ValueError: settings that do not go together.
    """

    folds_items_in = False  # a new item could share its codes with a known one

    def __init__(self, config, dataset):
        for key, value in _NEEDED.items():
            if config[key] != value:
                raise ValueError(f"{key}={config[key]}: codes are generated with {key}={value} only")
        super().__init__(config, dataset)
        if not config["item_identity"]:
            self.item_vectors.requires_grad_(False)  # nothing reads them
        self._trie = None

    def _new_prompt(self, max_items, pretrained):
        return super()._new_prompt(max_items + 1, pretrained)  # the item that is generated stands there as well

    def _add_head(self, dataset):
        n_tokens, codes = self.item_codes.codes.shape[1], self.item_tokenizer.codes
        self.code_heads = nn.ModuleList(nn.Linear(self.config["hidden_size"], codes) for _ in range(n_tokens))

    def stages(self, dataset) -> Iterator[Stage]:
        """Those of TokenRec; afterwards every item must have codes of its own."""
        yield from super().stages(dataset)
        try:
            self._trie = self._new_trie()
        except ValueError as error:
            raise UserError(f"{error}: raise codes or item_tokens") from error

    def train(self, mode=True):
        self._trie = None  # other weights, with other codes, may have been loaded since
        return super().train(mode)

    @property
    def trie(self) -> CodeTrie:
        """Of the items that have codes."""
        if self._trie is None:
            self._trie = self._new_trie()
        return self._trie

    def _new_trie(self) -> CodeTrie:
        return CodeTrie(self.item_codes.codes, self.item_codes.stand_in)

    # training

    def code_states(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States before every code of every item but the first, for histories [B, L + 1] padded at the end:
        [B, L, K, D]."""
        states = self.backbone(self._read(item_seq, user).vectors)                # [B, S, D]
        first = self.prompt.prefix_length + self.prompt.positions_per_item - 1
        return states[:, first:-1].unflatten(1, (item_seq.shape[1] - 1, -1))      # [B, L, K, D]

    def calculate_loss(self, interaction) -> TokenRecBeamLoss:
        """Cross entropy of the K codes of the next item, added up, mean over the targets of a batch."""
        targets = self._targets(interaction)                                      # states [n, K, D]
        codes = self.item_codes.codes[targets.items]                              # [n, K]
        none = self.item_codes.stand_in
        loss = sum(F.cross_entropy(head(targets.states[:, level]), codes[:, level], ignore_index=none, reduction="sum",
                                   label_smoothing=self.config["label_smoothing"])
                   for level, head in enumerate(self.code_heads))
        return TokenRecBeamLoss(loss / (codes[:, 0] != none).sum().clamp(min=1))

    def _targets(self, interaction) -> Targets:
        """All targets of a batch and the states before their codes [n, K, D]."""
        user, length = interaction[self.USER_ID], interaction[self.ITEM_SEQ_LEN]
        last = self._next_items(interaction).gather(1, length[:, None] - 1)       # [B, 1]

        def states_of(item_seq, rows):  # the last target, too, is read up to its last code but one
            whole = F.pad(item_seq, (0, 1)).scatter(1, length[rows, None], last[rows])    # [b, L' + 1]
            return self.code_states(whole, user[rows])                            # [b, L', K, D]

        return self._states_with_targets(interaction, states_of)

    def _with_identity(self, read: Tensor, items: Tensor) -> Tensor:
        """Add the learned vector of every item [B, L] to its last token in ``read`` [B, L, K, D]."""
        return super()._with_identity(read.flip(2), items).flip(2)

    # scores

    @torch.no_grad()
    def generate(self, interaction, width: int | None = None, excluded: Tensor | None = None) -> Beams:
        """The likeliest next items [B, W] and their log-probabilities, by beam search.

        Args:
            width: W; ``beam_size`` if not given.
            excluded: item numbers [B, E] not to be generated, 0 = none.
        """
        width = width or self.config["beam_size"]
        length = interaction[self.ITEM_SEQ_LEN]
        found, order = [], length_groups(length)
        for rows in order:
            item_seq = interaction[self.ITEM_SEQ][rows, :int(length[rows[0]])]
            writer = _Writer(self, self._read(item_seq, interaction[self.USER_ID][rows]), length[rows], width)
            found.append(beam_search(self.trie, width, writer, None if excluded is None else excluded[rows]))
        back = torch.cat(order).argsort()
        return Beams(*(torch.cat(part)[back] for part in zip(*found)))

    def predict(self, interaction) -> Tensor:
        """Score of one item a row [B], as :meth:`full_sort_predict` gives it."""
        found = self.generate(interaction)
        own = found.items == interaction[self.ITEM_ID][:, None]                   # [B, W]
        return found.log_probs.masked_fill(~own, torch.finfo(found.log_probs.dtype).min).amax(1)

    def full_sort_predict(self, interaction) -> Tensor:
        """Scores of the whole catalogue [B, N], fresh and writable: log-probabilities of the items in the beam.

        All others share the lowest finite number: behind every beam and tied, and still in front of what an evaluation
        masks with -inf.
        """
        # What the evaluation masks anyhow must not hold places of the beam.
        found = self.generate(interaction, excluded=interaction[self.ITEM_SEQ] if self.config["mask_seen"] else None)
        lowest = torch.finfo(found.log_probs.dtype).min
        scores = found.log_probs.new_full((len(found.items), self.n_items), lowest)
        return scores.scatter_(1, found.items, found.log_probs.clamp(min=lowest))

    def top_k(self, interaction, k: int, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k] of the best items; -inf and 0 where too few are found. A list longer than
        the beam widens it.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none.
        """
        found = self.generate(interaction, max(k, self.config["beam_size"]), excluded)
        return found.log_probs[:, :k], found.items[:, :k]

    @torch.no_grad()
    def score_all(self, interaction) -> Tensor:
        """Exact log-probabilities of the whole catalogue [B, N], each from a pass of its own: a reference for the beam on
        small catalogues. -inf for items without codes."""
        items = self.trie.items                                                   # [n]
        codes = self.item_codes.codes[items]                                      # [n, K]
        scores = []
        for item_seq, length, user in zip(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN].tolist(),
                                          interaction[self.USER_ID]):
            whole = torch.cat([item_seq[:length].expand(len(items), -1), items[:, None]], dim=1)
            states = self.code_states(whole, user.expand(len(items)))[:, -1]      # [n, K, D]
            scores.append(sum(head(states[:, level]).log_softmax(1).gather(1, codes[:, level, None]).squeeze(1)
                              for level, head in enumerate(self.code_heads)))
        scores = torch.stack(scores)                                              # [B, n]
        return scores.new_full((len(scores), self.n_items), -torch.inf).index_copy_(1, items, scores)


class _Writer:
    """What a beam search asks for: log-probabilities of the next code, after prompts of ``length`` items [b]."""

    def __init__(self, model: TokenRecBeam, prompt: Layout, length: Tensor, width: int):
        self.model, self.level = model, 0
        room = width * (len(model.code_heads) - 1)
        state, self.memory = model.backbone.start(prompt.vectors, prompt.last(length), room)
        self.states = state[:, None]                                              # [b, 1, D]

    def __call__(self, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        if codes is not None:
            read = self.model.item_codes.read_level(codes, self.level)                  # [b, w, D]
            self.states, self.memory = self.model.backbone.step(self.memory, read, parents)
            self.level += 1
        return self.model.code_heads[self.level](self.states).log_softmax(-1)     # [b, w, C]
