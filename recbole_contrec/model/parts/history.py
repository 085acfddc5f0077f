"""
recbole_contrec.model.parts.history
###################################
What reads a history: tokens of users and items laid out in a prompt, and the language model that turns them into
states.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_contrec.backbone import CausalDecoder, Layout, PretrainedDecoder, Prompt, length_groups, rows_at_once
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.language import Language
from recbole_contrec.model.parts.learned_vectors import ItemVectors
from recbole_contrec.model.parts.targets import Targets, WindowBatch, groups_of, targets_of


class HistoryEncoding(NamedTuple):
    """What one reading of the histories of a batch gives; None for what was not asked for."""

    conditions: Tensor  # [B, ...]          what the next preference is generated from
    log_probs: Tensor | None = None  # [B, 1 + texts]    of the texts of the items, by `Answers.text_of`
    answers: Tensor | None = None  # [B, A]            words of the generated answer


class LastState:
    """The condition of the next preference: the state after the last item, or the mean state of an answer, as it is."""

    def after_items(self, states: Tensor) -> Tensor:
        """From the states after every item to the conditions there, [B, L, D] -> [B, L, D]."""
        return states

    def after_answers(self, states: Tensor) -> Tensor:
        """From the mean states of answers to conditions, [..., D] -> [..., D]."""
        return states

    def positions(self, prompt: Layout, length: Tensor) -> tuple[Tensor, Tensor]:
        """The positions whose states make the condition after ``length`` items [b, Q], and which of them is its own
        [b]."""
        return prompt.last(length)[:, None], torch.zeros_like(length)

    def of_last(self, states: Tensor, last: Tensor) -> Tensor:
        """From the states at these positions [b, Q, D] to the condition [b, D]."""
        return self.after_items(states)[torch.arange(len(last), device=last.device), last]


class HistoryEncoder:
    """Reads histories: a prompt of the tokens of users and items, and a language model over it.

    It belongs to a model, which owns the parts, and has no parameters of its own.

    Axes: B batch, L history length, K tokens, D width of the language model.

    Args:
        prompt: which vector stands where.
        backbone: from vectors to states.
        items: from item numbers [B, L] to what is read for them [B, L, K, D].
        users: from user numbers [B] and histories [B, L] to what is read for users [B, K, D]; None for a prompt
            without them.
        item_vectors: whose vectors are read with the tokens, where they are asked to be.
        language: the words that are read of items; None for none.
        condition: what the next preference is generated from.
        room: positions that a prompt has for the history; None where all histories fit.
    """

    def __init__(
        self,
        prompt: Prompt,
        backbone: Any,
        items: Callable[[Tensor], Tensor],
        users: Any = None,
        item_vectors: ItemVectors | None = None,
        language: Language | None = None,
        condition: LastState | None = None,
        room: int | None = None,
    ):
        self.prompt = prompt
        self.backbone: Any = backbone
        self.items, self.users, self.item_vectors, self.language = items, users, item_vectors, language
        self.condition, self.room = condition or LastState(), room

    def read_items(self, item_seq: Tensor) -> Tensor:
        """What is read for items, words apart: [B, L] -> [B, L, K, D]."""
        items = self.items(item_seq)
        return items if self.item_vectors is None else self.item_vectors.add_to(items, item_seq)

    def layout(self, item_seq: Tensor, user: Tensor, known: Tensor | None = None) -> Layout:
        """The prompts of histories [B, L] and users [B].

        Args:
            known: what is read for every item of the catalogue [N, K or 1, D], where that has been computed.
        """
        users = None if self.users is None else self.users(user, item_seq)  # [B, K, D]
        if known is None:
            items = self.read_items(item_seq)  # [B, L, K, D]
        else:
            items = F.embedding(item_seq, known.flatten(1)).unflatten(-1, known.shape[1:])
        if self.language is None:
            return self.prompt(users, items)
        items = self.language.with_bag(self.backbone, items, item_seq)
        return self.prompt(users, items, self.language.words(self.backbone, item_seq))

    def states(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """Conditions after every item [B, L, D] of histories [B, L] padded at the end."""
        prompt = self.layout(item_seq, user)
        return self.condition.after_items(prompt.after_items(self.backbone(prompt.vectors)))

    # in training

    def targets(self, batch: WindowBatch) -> Targets:
        """The targets of a batch with the conditions before them: one pass trains every position of a window."""
        batch = self.fitted(batch)
        groups, layouts = groups_of(batch, self.positions(batch.item_seq)), []

        def prompts() -> Iterator[Tensor]:
            for item_seq, rows in groups:
                layouts.append(self.layout(item_seq, batch.user[rows]))
                yield layouts[-1].vectors

        states = self.backbone.states_of_each(prompts())
        conditions = (self.condition.after_items(one.after_items(part)) for one, part in zip(layouts, states))
        return targets_of(batch, groups, conditions)

    # in use

    def conditions(self, item_seq: Tensor, length: Tensor, user: Tensor) -> Tensor:
        """What the next preference is generated from after histories [B, L] of some length [B], [B, ...]."""
        return self.encode(item_seq, length, user, lambda *read: HistoryEncoding(self.state_after(*read))).conditions

    def no_single_pass(self) -> str | None:
        """Why :meth:`in_one_pass` does not read histories as :meth:`conditions` does; None where it does."""
        if isinstance(self, EncoderDecoderHistory) or not isinstance(self.backbone, CausalDecoder):
            return "only the compact causal language model is translated, neither a pretrained model nor T5"
        if self.language is not None:
            return "its prompts hold words, as many as each item has"
        return None if self.room is None else "its prompts have no room for every history"

    def in_one_pass(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """:meth:`conditions` [B, D] of people who are not in the data, without grouping and with shapes that depend on
        no number: histories [B, L] of some length [B]."""
        users = None if self.users is None else self.users.of_histories(item_seq)
        prompt = self.prompt(users, self.read_items(item_seq))
        states = self.condition.after_items(prompt.after_items(self.backbone(prompt.vectors)))  # [B, L, D]
        last = (length - 1)[:, None, None].expand(-1, 1, states.shape[-1])
        return states.gather(1, last).squeeze(1)

    def encode(
        self,
        item_seq: Tensor,
        length: Tensor,
        user: Tensor,
        read: Callable[[Layout, Tensor], HistoryEncoding],
        at_once: Callable[[int], int] | None = None,
    ) -> HistoryEncoding:
        """Read histories [B, L] of some length [B]; rows of similar length are computed together.

        Args:
            read: from prompts and the lengths [b] of their histories to what is taken of them.
            at_once: from positions to the histories of so many that ``read`` may be given; None for no limit of its
                own.
        """
        item_seq, length = self.fitting(item_seq, length)
        positions = self.positions(item_seq)
        found, order, known = [], [], self._read_catalogue(item_seq)
        for rows in length_groups(positions):
            order += rows.split(self._rows_at_once(int(positions[rows].max()), at_once, item_seq.device))
        for rows in order:
            longest = int(length[rows].max())
            found.append(read(self.layout(item_seq[rows, :longest], user[rows], known), length[rows]))
        back = torch.cat(order).argsort()
        return HistoryEncoding._make(None if parts[0] is None else torch.cat(parts)[back] for parts in zip(*found))

    def _read_catalogue(self, item_seq: Tensor) -> Tensor | None:
        """What is read for every item [N, K, D], or the sum of its tokens [N, 1, D] where a prompt holds no more of
        them; None where histories [B, L] name fewer items than there are, or something is drawn at each."""
        if self.item_vectors is None or self.item_vectors.training:
            return None
        n_items = self.item_vectors.num_embeddings
        if n_items > int((item_seq > 0).sum()):
            return None
        read = self.read_items(torch.arange(n_items, device=item_seq.device)[None])[0]
        summed = self.language is None and self.prompt.positions_per_item == 1
        return read.sum(1, keepdim=True) if summed else read

    def state_after(self, prompt: Layout, length: Tensor) -> Tensor:
        """The condition after the last item: prompts of ``length`` items [b] -> [b, D]."""
        at, last = self.condition.positions(prompt, length)
        return self.condition.of_last(self.backbone.states_at(prompt.vectors, at, prompt.shared), last)

    # room

    @property
    def cut(self) -> str | None:
        """What is left of histories for which a prompt has no room; None where all fit."""
        if self.room is None:
            return None
        least = self.room // self.prompt.widest_item
        return f"the latest items that fit into {self.room} positions, {least} at least"

    def positions(self, item_seq: Tensor) -> Tensor:
        """Positions of the prompt that histories take [B]."""
        return self._widths(item_seq).sum(1)

    def fitting(self, item_seq: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Histories [B, L] without their oldest items where all would not fit into the prompt.

        Args:
            others: what goes with them: lengths [B], or a value for every position [B, L].

        Returns:
            tuple: all of it, moved to the front and filled up with 0.
        """
        if self.room is None:
            return item_seq, *others
        widths = self._widths(item_seq)  # [B, L]
        behind = widths.flip(1).cumsum(1).flip(1)  # of an item and all later ones
        left_out = ((behind > self.room) & (item_seq > 0)).sum(1)  # [B]
        if not left_out.any():
            return item_seq, *others
        place = torch.arange(item_seq.shape[1], device=item_seq.device) + left_out[:, None]
        inside = place < item_seq.shape[1]
        place = place.clamp(max=item_seq.shape[1] - 1)
        return tuple(
            values - left_out if values.dim() == 1 else values.gather(1, place) * inside
            for values in (item_seq, *others)
        )

    def fitted(self, batch: WindowBatch) -> WindowBatch:
        """A training batch whose histories fit, see :meth:`fitting`."""
        item_seq, length, next_items = self.fitting(batch.item_seq, batch.length, batch.next_items)
        return WindowBatch(item_seq, length, next_items, batch.user)

    def _widths(self, item_seq: Tensor) -> Tensor:
        """Positions of the prompt that every item takes [B, L]; none for the padding."""
        words = self.language.word_counts(item_seq) if self.language else 0
        return (self.prompt.positions_per_item + words) * (item_seq > 0)

    def _rows_at_once(self, positions: int, at_once: Callable[[int], int] | None, device: torch.device) -> int:
        """How many histories of some positions fit into memory together."""
        limit = rows_at_once(self.prompt.prefix_length + positions, self.backbone.POSITIONS, device)
        return limit if at_once is None else min(limit, at_once(positions))


class EncoderDecoderHistory(HistoryEncoder):
    """A history read by a T5: its encoder reads in both directions, so every target costs a pass over what is before
    it. The condition is all P states that its decoder answers with, side by side [b, P D].

    Args:
        shuffled: whether the items of a history are read in random order in training.
    """

    def __init__(self, *args: Any, shuffled: bool = False, **parts: Any):
        super().__init__(*args, **parts)
        self.shuffled = shuffled

    def targets(self, batch: WindowBatch) -> Targets:
        targets = batch.targets()
        prefixes = targets.histories()  # [n, L]
        if self.shuffled:
            prefixes = shuffled(prefixes)
        return targets._replace(states=self.conditions(prefixes, targets.place + 1, batch.user[targets.row]))

    def state_after(self, prompt: Layout, length: Tensor) -> Tensor:
        return self.backbone(prompt.vectors, prompt.last(length) + 1).flatten(1)  # [b, P D]


def shuffled(item_seq: Tensor) -> Tensor:
    """Histories [n, L] with the items of each row in random order, the padding still at the end."""
    order = torch.rand(item_seq.shape, device=item_seq.device).masked_fill(item_seq == 0, 2.0).argsort(1)
    return item_seq.gather(1, order)


class DistinctHistories(NamedTuple):
    """Rows of a batch with sampled items, where a history stands in as many rows as it has candidates, one after the
    other."""

    first: Tensor  # [b]      a row of each distinct history
    of_row: Tensor  # [B]      the number of every row's history among them


def distinct_histories(item_seq: Tensor, user: Tensor) -> DistinctHistories:
    """Which of the histories [B, L] of users [B] are the same."""
    whole = torch.cat([item_seq, user[:, None]], dim=1)
    different, of_row = whole.unique_consecutive(dim=0, return_inverse=True)
    return DistinctHistories(torch.searchsorted(of_row, torch.arange(len(different), device=of_row.device)), of_row)


def positions_of_prompt(prompt: Prompt, answer: int, pretrained: PretrainedDecoder | None, most: int | None) -> int:
    """Positions that a prompt and an answer behind it may take together: what the longest ones need, within limits.

    Args:
        answer: positions of the longest answer, 0 for none.
        pretrained: the language model, which may read fewer; None for a compact one, which is made to fit.
        most: what the settings allow; None for no limit.
    """
    longest = prompt.max_positions + answer
    return min(longest, pretrained.longest_prompt(branches=answer > 0) if pretrained else longest, most or longest)


def room_for_history(prompt: Prompt, limit: int, answer: int) -> int | None:
    """Positions that a history may take in front of an answer; None where the longest one fits.

    Args:
        limit: positions of prompt and answer together.
        answer: positions of the longest answer.

    Raises:
        UserError: not even one item fits.
    """
    room = limit - answer - prompt.prefix_length
    if room < prompt.widest_item:
        raise UserError(
            f"a prompt of {limit} positions has no room for one item beside the instruction and an answer "
            f"({prompt.prefix_length} and {answer} positions, {prompt.widest_item} an item): raise "
            "max_prompt_length or take a language model that reads more, or cut texts by item_text_max_tokens and "
            "answer_max_tokens"
        )
    return None if prompt.max_positions + answer <= limit else room
