"""
recbole_contrec.model.base.identifier_generation
################################################
What every model shares that writes the codes of the next item one after the other: its loss, its beam search, and RecBole's
methods for scores.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone import length_groups, rows_at_once
from recbole_contrec.data.windows import SEEN_ITEMS
from recbole_contrec.decoding import Beams, CodeTrie, NextLogProbs, beam_search
from recbole_contrec.item_vectors.sources import check_source, vector_stages
from recbole_contrec.model.base.code_table import CODE_RMS, means_by_code, scaled
from recbole_contrec.model.base.self_improvement import Refined, SelfImprovement, check_rounds
from recbole_contrec.model.base.windowed import Targets
from recbole_contrec.storage.stages import Stage
from recbole_contrec.tokenizer import residual_kmeans

ITEMS_AT_ONCE = 256  # in score_all, whose memory grows with the square


class CodesLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    codes: Tensor


class AlignedLoss(NamedTuple):
    """Weighted terms of a model that improves its identifiers; the trainer minimises their sum."""

    codes: Tensor
    alignment: Tensor
    description: Tensor


class IdentifierGenerator:
    """Mixin over :class:`~recbole_contrec.model.base.windowed.Windowed`: a causal backbone that writes codes.

    Every code has a position of its own, so what stands in the prompt after a history is what a decoder would have
    written, and one causal pass trains all K codes of all targets. In evaluation the history is read once; a beam search
    writes the rest, K - 1 positions a beam, along a trie of the catalogue.

    An heir sets ``config`` (with ``beam_size`` and ``label_smoothing``), ``n_items``, ``item_codes``, ``code_heads`` (K maps
    from D to C), ``prompt``, ``backbone`` and ``improvement``, and defines ``_read``. For a backbone of another kind it
    redefines what stands below "backbone".

    Axes: B batch, L history length, K codes of an item, C codes of a codebook, D width, N items, W beams, n targets.
    """

    searches = True  # asks the evaluation for all items that it leaves out
    _trie: CodeTrie | None = None
    improvement: SelfImprovement | None  # None where identifiers stay as they are

    def train(self, mode=True):
        self._trie = None  # other weights, with other codes, may have been loaded since
        return super().train(mode)

    @property
    def trie(self) -> CodeTrie:
        """Of the items that have codes.

        Raises:
            ValueError: two items have the same ones.
        """
        if self._trie is None:
            self._trie = self._new_trie()
        return self._trie

    def _new_trie(self) -> CodeTrie:
        return CodeTrie(self.item_codes.codes, self.item_codes.unknown_code)

    def _new_improvement(self) -> SelfImprovement | None:
        """What improves the identifiers, None where they stay as they are.

        Raises:
            ValueError: settings that would be ignored, or never refine anything.
        """
        config = self.config
        check_rounds(config, self.item_codes.codes.shape[1])
        if not config["self_improve"]:
            return None
        improvement = SelfImprovement(self.n_items, config["vector_size"], config["hidden_size"], config)
        return improvement.requires_grad_(config["alignment_weight"] > 0)  # its losses alone train it

    def check_sources(self, dataset) -> None:
        """Stop before anything is written where the stages lack what they are made of.

        Raises:
            UserError: says what lacks.
        """
        check_source(self.config, dataset)
        if self.improvement is not None and self.config["item_descriptions"]:
            check_source(self.config, dataset, "item_descriptions")

    def _describe(self, vectors: Tensor) -> None:
        """Take item vectors [N, d] as what the items are described by."""
        if self.improvement is not None:
            self.improvement.describe(vectors)

    def _description_stages(self, dataset, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """Vectors in place of those, where ``item_descriptions`` names some; ``texts`` of ``vectors`` are not read again."""
        if self.improvement is not None and self.config["item_descriptions"]:
            found = {name: read for name, read in vectors.items() if name == "texts"}
            yield from vector_stages(self.config, dataset, found, "item_descriptions")
            self._describe(found["items"])

    # training

    def code_states(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States before every code of every item but the first, for histories [B, L + 1] padded at the end:
        [B, L, K, D]."""
        states = self.backbone(self._read(item_seq, user).vectors)  # [B, S, D]
        first = self.prompt.prefix_length + self.prompt.positions_per_item - 1
        return states[:, first:-1].unflatten(1, (item_seq.shape[1] - 1, -1))  # [B, L, K, D]

    def calculate_loss(self, interaction) -> CodesLoss | AlignedLoss:
        """Cross entropy of the K codes of the next item, added up, mean over the targets of a batch; and the losses that
        align items and identifiers, where these are to be improved."""
        targets = self._targets(interaction)  # states [n, K, D]
        loss = self.code_loss(targets.states, self.item_codes.codes[targets.items])
        weight = self.config["alignment_weight"] if self.improvement is not None else 0
        if not weight:
            return CodesLoss(loss)
        return AlignedLoss(loss, *(weight * term for term in self.improvement.losses(self)))

    def code_loss(self, states: Tensor, codes: Tensor) -> Tensor:
        """Cross entropy of codes [n, K] after states [n, K, D], added up over K, mean over the rows that have codes."""
        none = self.item_codes.unknown_code
        loss = sum(
            F.cross_entropy(
                head(states[:, level]),
                codes[:, level],
                ignore_index=none,
                reduction="sum",
                label_smoothing=self.config["label_smoothing"],
            )
            for level, head in enumerate(self.code_heads)
        )
        return loss / (codes[:, 0] != none).sum().clamp(min=1)

    def refine(self, batches: Iterable) -> dict:
        """Put improved identifiers in place of those of now; says what changed.

        Args:
            batches: of training, for what the model has learned of the items.
        """
        refined = self.improvement.refine(self, batches)
        self.adopt(refined)
        return refined.report

    @torch.no_grad()
    def adopt(self, refined: Refined) -> None:
        """Give the items other identifiers. Where these were quantised, their codes mean something new, so that what they are
        read as and scored by starts anew, where their items lie."""
        if refined.vectors is None:
            self.item_codes.codes.copy_(refined.codes)
        else:
            self.item_codes.recode(refined.codes)
            for head, column in zip(self.code_heads, refined.codes.T):
                wanted = refined.counts.new_zeros(self.item_codes.unknown_code + 1).index_add_(
                    0, column, refined.counts
                )[:-1]
                head.weight.zero_()  # nobody has the codes that stay so
                head.bias.copy_(((wanted + 0.5) / (wanted + 0.5).sum()).log())
            self.score_by(refined.vectors)
        self._trie = None

    @torch.no_grad()
    def score_by(self, vectors: Tensor) -> None:
        """Score codes by how near a state is to where the items lie that have them, by vectors [N, D] of any size."""
        placed = means_by_code(vectors, self.item_codes.codes, self.item_codes.unknown_code)
        for head, (used, means) in zip(self.code_heads, placed):
            if means.any():
                head.weight[used] = scaled(means, CODE_RMS)

    def quantised(self, vectors: Tensor) -> Tensor:
        """Codes [N, K - 1] of vectors [N, D] for a refinement, the number C for rows without one; a last code will tell apart
        what shares them. Residual k-means here; an heir with another tokenizer may take that."""
        return residual_kmeans(
            vectors, self.item_codes.codes.shape[1] - 1, self.item_codes.unknown_code, self.config["seed"]
        )

    def _targets(self, interaction) -> Targets:
        """All targets of a batch and the states before their codes [n, K, D]."""
        user, length = interaction[self.USER_ID], interaction[self.ITEM_SEQ_LEN]
        last = self._next_items(interaction).gather(1, length[:, None] - 1)  # [B, 1]

        def states_of(item_seq, rows):  # the last target, too, is read up to its last code but one
            whole = F.pad(item_seq, (0, 1)).scatter(1, length[rows, None], last[rows])  # [b, L' + 1]
            return self.code_states(whole, user[rows])  # [b, L', K, D]

        return self._states_with_targets(interaction, states_of)

    # backbone

    def states_of_codes(self, prompts: Tensor, codes: Tensor) -> Tensor:
        """States before each of the codes [n, K] when they are written behind prompts [n, P, D]: [n, K, D]."""
        read = self.item_codes.read(codes)[:, :-1]  # [n, K - 1, D]
        return self.backbone(torch.cat([prompts, read], dim=1))[:, prompts.shape[1] - 1 :]

    def log_probs(self, prompts: Tensor, codes: Tensor) -> Tensor:
        """Log-probabilities [n] of codes [n, K] behind prompts [n, P, D]."""
        return log_probs_of(self.code_heads, self.states_of_codes(prompts, codes), codes)

    def state_behind(self, prompts: Tensor) -> Tensor:
        """The state after the last vector of prompts [n, P, D]: [n, D]."""
        return self.backbone(prompts)[:, -1]

    def writer_behind(self, prompts: Tensor, width: int) -> NextLogProbs:
        """What gives a search of ``width`` beams log-probabilities behind prompts [n, P, D] without padding."""
        last = torch.full((len(prompts),), prompts.shape[1] - 1, device=prompts.device)
        return self._writer(prompts, last, width)

    def _writer(self, vectors: Tensor, last: Tensor, width: int) -> NextLogProbs:
        """The same behind prompts [b, S, D] padded at the end, with the position [b] that the first code comes after."""
        return Writer(self, vectors, last, width)

    # scores

    @torch.no_grad()
    def generate(self, interaction, width: int | None = None, excluded: Tensor | None = None) -> Beams:
        """The likeliest next items [B, W] and their log-probabilities, by beam search.

        Args:
            width: W; ``beam_size`` if not given.
            excluded: item numbers [B, E] not to be generated, 0 = none.
        """
        return self._search(interaction, self.trie, width or self.config["beam_size"], excluded)

    def _search(self, interaction, trie: CodeTrie, width: int, excluded: Tensor | None = None) -> Beams:
        length = interaction[self.ITEM_SEQ_LEN]
        found, order = [], []
        for rows in length_groups(length):
            positions = self.prompt.prefix_length + int(length[rows[0]]) * self.prompt.positions_per_item
            order += rows.split(rows_at_once(positions, self.backbone.POSITIONS, length.device))
        for rows in order:
            item_seq = interaction[self.ITEM_SEQ][rows, : int(length[rows[0]])]
            prompt = self._read(item_seq, interaction[self.USER_ID][rows])
            writer = self._writer(prompt.vectors, prompt.last(length[rows]), width)
            found.append(beam_search(trie, width, writer, None if excluded is None else excluded[rows]))
        back = torch.cat(order).argsort()
        return Beams(*(torch.cat(part)[back] for part in zip(*found)))

    def _never_generated(self, interaction) -> Tensor | None:
        """Items [B, E] that hold no place of a beam; None for none."""
        # What the evaluation masks anyhow must not hold places of the beam; it knows more of a history than its last L items.
        if SEEN_ITEMS in interaction:
            return interaction[SEEN_ITEMS]
        return interaction[self.ITEM_SEQ] if self.config["mask_seen"] else None

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Log-probability of one item a row [B], exact whether a beam would find it or not; the lowest finite number for
        an item without codes, or one that is never generated here."""
        targets = self._targets(interaction)  # states [B, K, D], in an order of their own
        codes = self.item_codes.codes[targets.items]  # [B, K]
        found = log_probs_of(self.code_heads, targets.states, codes.clamp(max=self.item_codes.unknown_code - 1))
        lowest = torch.finfo(found.dtype).min
        found = found.masked_fill(codes[:, 0] == self.item_codes.unknown_code, lowest)
        scores = torch.full_like(found, lowest).scatter_(0, targets.row, found)
        never = self._never_generated(interaction)
        if never is not None:
            scores = scores.masked_fill((never == interaction[self.ITEM_ID][:, None]).any(1), lowest)
        return scores

    def full_sort_predict(self, interaction) -> Tensor:
        """Scores of the whole catalogue [B, N], fresh and writable: log-probabilities of the items in the beam, which is
        at least as wide as the longest list of the evaluation (``topk``).

        All others share the lowest finite number: behind every beam and tied, and still in front of what an evaluation
        masks with -inf.
        """
        width = max(self.config["beam_size"], *self.config["topk"])
        found = self.generate(interaction, width, self._never_generated(interaction))
        lowest = torch.finfo(found.log_probs.dtype).min
        scores = found.log_probs.new_full((len(found.items), self.n_items), lowest)
        return scores.scatter_(1, found.items, found.log_probs.clamp(min=lowest))

    def top_k(self, interaction, k: int, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k] of the best items; -inf and 0 where too few are found. A list longer than
        the beam widens it.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none, and then nothing else is left out; None leaves out what
                :meth:`full_sort_predict` does.
        """
        never = self._never_generated(interaction) if excluded is None else excluded
        found = self.generate(interaction, max(k, self.config["beam_size"]), never)
        return found.log_probs[:, :k], found.items[:, :k]

    @torch.no_grad()
    def score_all(self, interaction) -> Tensor:
        """Exact log-probabilities of the whole catalogue [B, N], -inf for items without codes: the steps of a beam search
        with a beam for every prefix, some items at a time. A reference, not made for speed."""
        scores, codes = None, self.item_codes.codes
        for items in self.trie.items.split(ITEMS_AT_ONCE):
            chosen = torch.full_like(codes, self.item_codes.unknown_code).index_copy_(0, items, codes[items])
            found = self._search(interaction, CodeTrie(chosen, self.item_codes.unknown_code), len(items))
            if scores is None:
                scores = found.log_probs.new_full((len(found.items), self.n_items), -torch.inf)
            scores.scatter_(1, found.items, found.log_probs)
        return scores


class Writer:
    """What a beam search asks for: log-probabilities of the next code.

    Args:
        model: an :class:`IdentifierGenerator`, whose backbone has ``start`` and ``step``.
        vectors: prompts [b, S, D], padded at the end.
        last: the position that the first code comes after [b].
        width: beams at most.
    """

    def __init__(self, model, vectors: Tensor, last: Tensor, width: int):
        self.model, self.level, self.read = model, 0, None
        room = width * (len(model.code_heads) - 1)
        self.states, self.memory = model.backbone.start(vectors, last[:, None], room)  # [b, 1, D]

    def __call__(self, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        if codes is not None:
            before = (
                None
                if self.read is None
                else self.read.gather(1, parents[..., None].expand(-1, -1, self.read.shape[2]))
            )
            self.read = self.model.item_codes.read_next(codes, self.level, before)  # [b, w, D]
            self.states, self.memory = self.model.backbone.step(self.memory, self.read, parents)
            self.level += 1
        return self.model.code_heads[self.level](self.states).log_softmax(-1)  # [b, w, C]


def log_probs_of(heads: nn.ModuleList, states: Tensor, codes: Tensor) -> Tensor:
    """Log-probabilities [n] of codes [n, K] after states [n, K, D], by K maps from D to C."""
    return sum(
        head(states[:, level]).log_softmax(1).gather(1, codes[:, level, None]).squeeze(1)
        for level, head in enumerate(heads)
    )
