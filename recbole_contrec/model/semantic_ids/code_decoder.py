"""
recbole_contrec.model.semantic_ids.code_decoder
###############################################
A language model that reads histories and writes semantic ids: the loss of codes, exact log-probabilities, beam search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone import PretrainedDecoder, length_groups, rows_at_once
from recbole_contrec.decoding import Beams, CodeTrie, NextLogProbs, beam_search
from recbole_contrec.model.parts.code_table import CODE_RMS, CodeTable, means_by_code, scaled, sum_of
from recbole_contrec.model.parts.history import HistoryEncoder
from recbole_contrec.model.parts.targets import WindowBatch, targets_with_states

COMPACT_WIDTH = 64  # of a model whose states are of unit size, for which CODE_RMS was chosen
ITEMS_AT_ONCE = 256  # in score_all, whose memory grows with the square


class CodeBackbone(Protocol):
    """What a language model offers to write codes with; a module. ``CausalDecoder``, ``PretrainedDecoder`` and
    ``T5Writer`` do."""

    POSITIONS: int  # of prompts that are read at once where nothing is learned
    causal: bool  # whether a state knows nothing of later positions, so that one pass trains all targets of a window

    def __call__(self, inputs: Tensor) -> Tensor:
        """States at all positions of prompts [B, S, D], [B, S, D]; of a causal one."""

    def states_behind(self, prompts: Tensor, written: Tensor, length: Tensor | None = None) -> Tensor:
        """States before and after each of the vectors [n, Q, D] written behind prompts [n, P, D] of some length
        [n], all P positions if not given: [n, 1 + Q, D]."""

    def start(self, inputs: Tensor, at: Tensor, room: int) -> tuple[Tensor, Any]:
        """States [B, 1, D] at positions [B, 1] of prompts [B, S, D], and a memory to go on from."""

    def step(self, memory: Any, inputs: Tensor, parents: Tensor) -> tuple[Tensor, Any]:
        """States [B, W, D] after one more vector [B, W, D] a branch, and the memory behind it."""


class CodeTargets(NamedTuple):
    """The targets of a batch: n items whose codes are to be predicted."""

    states: Tensor  # [n, K, D]    before each code
    items: Tensor  # [n]
    row: Tensor  # [n]       of the batch


def code_heads(item_codes: CodeTable) -> nn.ModuleList:
    """From a state [D] to the scores of the C codes of a codebook, for each of the K codebooks."""
    width = item_codes.words.embedding_dim
    return nn.ModuleList(nn.Linear(width, item_codes.codebook_size) for _ in range(item_codes.num_codebooks))


@dataclass(frozen=True)
class CodeDecoderSettings:
    """Settings of a :class:`CodeDecoder`.

    Attributes:
        beam_size: beams alive at every code (W).
        label_smoothing: of the cross entropy of every code.
        head_rms: root mean square of what scores a code, where it is set by the items that have the code.
    """

    beam_size: int
    label_smoothing: float
    head_rms: float = CODE_RMS

    @classmethod
    def from_config(cls, config: Any, pretrained: PretrainedDecoder | None = None) -> "CodeDecoderSettings":
        """With a pretrained model, scores start with the spread that they have behind a compact one."""
        if pretrained is None:
            return cls(config["beam_size"], config["label_smoothing"])
        width = pretrained.hidden_size
        rms = CODE_RMS * COMPACT_WIDTH**0.5 / (width**0.5 * pretrained.state_size)
        return cls(config["beam_size"], config["label_smoothing"], rms)


class CodeDecoder:
    """Reads histories, and writes the K codes of the next item one after the other.

    A code is written behind the history and the codes before it, so what stands in a prompt after a history is what the
    decoder would have written. In evaluation a history is read once, and a beam search along a trie of the catalogue
    writes K - 1 more positions a beam.

    It belongs to a model, which owns the parts, and has no parameters of its own.

    Axes: B batch, L history length, K codes of an item, C codes of a codebook, D width, N items, W beams, n targets.

    Args:
        history: what reads histories; every code has a position of its own in its prompt. Its backbone is a
            :class:`CodeBackbone`.
        item_codes: the codes of the items.
        heads: from a state [D] to the scores of the C codes, one for each of the K places.
        settings: of the loss and of the search.
    """

    def __init__(
        self, history: HistoryEncoder, item_codes: CodeTable, heads: nn.ModuleList, settings: CodeDecoderSettings
    ):
        self.history, self.item_codes, self.settings = history, item_codes, settings
        self.heads = cast(Sequence[nn.Linear], heads)
        self.backbone = cast(CodeBackbone, history.backbone)
        self._trie: CodeTrie | None = None

    @property
    def trie(self) -> CodeTrie:
        """Of the items that have codes.

        Raises:
            ValueError: two items have the same ones.
        """
        if self._trie is None:
            self._trie = CodeTrie(self.item_codes.codes, self.item_codes.unknown_code)
        return self._trie

    def forget_trie(self) -> None:
        """To be called where the codes of the items may have changed, as by loading weights."""
        self._trie = None

    # states

    def read(self, codes: Tensor) -> Tensor:
        """What is read of codes [..., K], as large as in a history: [..., K, D]."""
        return self.history.prompt.token_scale * self.item_codes.read(codes)

    def targets(self, batch: WindowBatch) -> CodeTargets:
        """All targets of a batch and the states before their codes."""
        if not self.backbone.causal:
            targets = batch.targets()
            histories, length, user = targets.histories(), targets.place + 1, batch.user[targets.row]
            states = self.states_after_prefixes(histories, length, user, targets.items)
            return CodeTargets(states, targets.items, targets.row)
        last = batch.next_items.gather(1, batch.length[:, None] - 1)  # [B, 1]

        def states_of(item_seq: Tensor, rows: Tensor) -> Tensor:
            # the last target, too, is read up to its last code but one
            whole = F.pad(item_seq, (0, 1)).scatter(1, batch.length[rows, None], last[rows])  # [b, L' + 1]
            return self.states_in_windows(whole, batch.user[rows])  # [b, L', K, D]

        targets = targets_with_states(batch, states_of)
        assert targets.states is not None
        return CodeTargets(targets.states, targets.items, targets.row)

    def states_in_windows(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States before every code of every item but the first, for histories [B, L + 1] padded at the end and users
        [B]: [B, L, K, D]. One pass of a causal backbone."""
        states = self.backbone(self.history.layout(item_seq, user).vectors)  # [B, S, D]
        first = self.history.prompt.prefix_length + self.history.prompt.positions_per_item - 1
        return states[:, first:-1].unflatten(1, (item_seq.shape[1] - 1, -1))  # [B, L, K, D]

    def states_after_prefixes(self, item_seq: Tensor, length: Tensor, user: Tensor, target: Tensor) -> Tensor:
        """States before every code of targets [n] after histories [n, L] of some length [n] and users [n]: [n, K, D].
        One row a target: the way for a backbone that reads a history in both directions."""
        written = self.read(self.item_codes.codes[target])[:, :-1]  # [n, K - 1, D]
        states, order = [], length_groups(length)
        for rows in order:
            prompt = self.history.layout(item_seq[rows, : int(length[rows[0]])], user[rows])
            last = prompt.last(length[rows])
            states.append(self.backbone.states_behind(prompt.vectors, written[rows], last + 1))  # [b, K, D]
        return torch.cat(states)[torch.cat(order).argsort()]

    def states_before_codes(self, prompts: Tensor, codes: Tensor, length: Tensor | None = None) -> Tensor:
        """States before each of the codes [n, K] when they are written behind prompts [n, P, D] of some length [n], all
        P positions if not given: [n, K, D]."""
        return self.backbone.states_behind(prompts, self.read(codes)[:, :-1], length)

    def state_behind(self, prompts: Tensor) -> Tensor:
        """The state after the last vector of prompts [n, P, D]: [n, D]."""
        return self.backbone.states_behind(prompts, prompts[:, :0])[:, 0]

    # loss and log-probabilities

    def loss(self, states: Tensor, codes: Tensor) -> Tensor:
        """Cross entropy of codes [n, K] after states [n, K, D], added up over K, mean over the rows that have codes."""
        none = self.item_codes.unknown_code
        loss = sum_of(
            F.cross_entropy(
                head(states[:, level]),
                codes[:, level],
                ignore_index=none,
                reduction="sum",
                label_smoothing=self.settings.label_smoothing,
            )
            for level, head in enumerate(self.heads)
        )
        return loss / (codes[:, 0] != none).sum().clamp(min=1)

    def item_log_probs(self, states: Tensor, items: Tensor) -> Tensor:
        """Log-probabilities [n] of items [n] after the states before their codes [n, K, D]; the lowest finite number
        for an item without codes."""
        codes, none = self.item_codes.codes[items], self.item_codes.unknown_code  # [n, K]
        found = self.code_log_probs(states, codes.clamp(max=none - 1))
        return found.masked_fill(codes[:, 0] == none, torch.finfo(found.dtype).min)

    def code_log_probs(self, states: Tensor, codes: Tensor) -> Tensor:
        """Log-probabilities [n] of codes [n, K] after states [n, K, D]."""
        return sum_of(
            head(states[:, level]).log_softmax(1).gather(1, codes[:, level, None]).squeeze(1)
            for level, head in enumerate(self.heads)
        )

    def log_probs(self, prompts: Tensor, codes: Tensor, length: Tensor | None = None) -> Tensor:
        """Log-probabilities [n] of codes [n, K] behind prompts [n, P, D] of some length [n]."""
        return self.code_log_probs(self.states_before_codes(prompts, codes, length), codes)

    # search

    def writer(self, prompts: Tensor, width: int, length: Tensor | None = None) -> NextLogProbs:
        """What gives a search of ``width`` beams log-probabilities behind prompts [n, P, D] of some length [n], all P
        positions if not given."""
        if length is None:
            length = torch.full((len(prompts),), prompts.shape[1], device=prompts.device)
        return CodeWriter(self, prompts, length - 1, width)

    @torch.no_grad()
    def search(
        self,
        item_seq: Tensor,
        length: Tensor,
        user: Tensor,
        width: int,
        excluded: Tensor | None = None,
        trie: CodeTrie | None = None,
    ) -> Beams:
        """The likeliest next items [B, W] and their log-probabilities.

        Args:
            item_seq: histories [B, L], padded at the end.
            length: of the histories [B].
            user: [B].
            width: W.
            excluded: item numbers [B, E] that hold no place of the beam, 0 = none; None for none at all.
            trie: of the items that may be found; all if not given.
        """
        trie = trie or self.trie
        found, order = [], []
        for rows in length_groups(length):
            positions = (
                self.history.prompt.prefix_length + int(length[rows[0]]) * self.history.prompt.positions_per_item
            )
            order += rows.split(rows_at_once(positions, self.backbone.POSITIONS, length.device))
        for rows in order:
            prompt = self.history.layout(item_seq[rows, : int(length[rows[0]])], user[rows])
            writer = CodeWriter(self, prompt.vectors, prompt.last(length[rows]), width)
            found.append(beam_search(trie, width, writer, None if excluded is None else excluded[rows]))
        back = torch.cat(order).argsort()
        return Beams(*(torch.cat(part)[back] for part in zip(*found)))

    @torch.no_grad()
    def score_all(self, item_seq: Tensor, length: Tensor, user: Tensor) -> Tensor:
        """Exact log-probabilities of the whole catalogue [B, N], -inf for items without codes: the steps of a beam
        search with a beam for every prefix, some items at a time. A reference, not made for speed."""
        codes, none = self.item_codes.codes, self.item_codes.unknown_code
        dtype = self.heads[0].weight.dtype
        scores = torch.full((len(length), len(codes)), -torch.inf, dtype=dtype, device=length.device)
        for items in self.trie.items.split(ITEMS_AT_ONCE):
            chosen = torch.full_like(codes, none).index_copy_(0, items, codes[items])
            found = self.search(item_seq, length, user, len(items), trie=CodeTrie(chosen, none))
            scores.scatter_(1, found.items, found.log_probs)
        return scores

    # other codes

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        """Put the vectors of codes, read and scored, where the items lie that have them, by vectors [N, D]."""
        self.item_codes.start_at(vectors)
        self.score_by(vectors)

    @torch.no_grad()
    def score_by(self, vectors: Tensor) -> None:
        """Score codes by how near a state is to where the items lie that have them, by vectors [N, D] of any size."""
        placed = means_by_code(vectors, self.item_codes.codes, self.item_codes.unknown_code)
        for head, (used, means) in zip(self.heads, placed):
            if means.any():
                head.weight[used] = scaled(means, self.settings.head_rms)

    @torch.no_grad()
    def assign(self, codes: Tensor) -> None:
        """Give the items other codes [N, K], which mean what they meant."""
        self.item_codes.codes.copy_(codes)
        self.forget_trie()

    @torch.no_grad()
    def recode(self, codes: Tensor, vectors: Tensor, counts: Tensor) -> None:
        """Give the items new codes [N, K], which mean something new: what they are read as and scored by starts anew.

        Args:
            vectors: where the items lie among the states [N, D].
            counts: how often each item is a target [N].
        """
        self.item_codes.recode(codes)
        for head, column in zip(self.heads, codes.T):
            taken = counts.new_zeros(self.item_codes.unknown_code + 1).index_add_(0, column, counts)[:-1]  # [C]
            head.weight.zero_()  # codes that no item has stay so
            head.bias.copy_(((taken + 0.5) / (taken + 0.5).sum()).log())
        self.score_by(vectors)
        self.forget_trie()


class CodeWriter:
    """What a beam search asks for: log-probabilities of the next code.

    Args:
        decoder: whose codes are written.
        prompts: vectors [b, S, D], padded at the end.
        last: the position that the first code comes after [b].
        width: beams at most.
    """

    def __init__(self, decoder: CodeDecoder, prompts: Tensor, last: Tensor, width: int):
        self.decoder, self.level = decoder, 0
        self.read: Tensor | None = None  # what was read of the codes that were chosen last
        room = width * (len(decoder.heads) - 1)
        self.states, self.memory = decoder.backbone.start(prompts, last[:, None], room)  # [b, 1, D]

    def __call__(self, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        """Log-probabilities [b, w, C] behind the codes [b, w] that were chosen last, each behind a beam of the call
        before, its parent [b, w]; None for both in the first call."""
        if codes is not None and parents is not None:
            self.read = self.decoder.item_codes.read_next(codes, self.level, self._read_by(parents))  # [b, w, D]
            written = self.decoder.history.prompt.token_scale * self.read
            self.states, self.memory = self.decoder.backbone.step(self.memory, written, parents)
            self.level += 1
        return self.decoder.heads[self.level](self.states).log_softmax(-1)  # [b, w, C]

    def _read_by(self, parents: Tensor) -> Tensor | None:
        """What was read of the last code of some beams [b, w, D]; None before the first one."""
        if self.read is None:
            return None
        return self.read.gather(1, parents[..., None].expand(-1, -1, self.read.shape[2]))
