"""
recbole_contrec.model.parts.answering
#####################################
Answers in words: learned beside the preferences, generated, and used in the scores.
"""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_contrec.backbone import Branches, Encoded, Generated, KeyValueCache, Layout, length_groups
from recbole_contrec.model.parts.history import HistoryEncoder, HistoryEncoding
from recbole_contrec.model.parts.language import Language
from recbole_contrec.model.parts.targets import Targets, WindowBatch, targets_with_states
from recbole_contrec.retrieval import Retrieval, TextEvidence


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are learned and generated."""

    weight: float  # of their loss
    per_window: int  # targets of a row that are answered about
    beams: int
    temperature: float
    before_preference: bool  # whether the next preference is generated from the answer instead of the history
    seed: int

    @classmethod
    def from_config(cls, config: Any) -> "AnswerSettings":
        return cls(
            weight=config["answer_weight"],
            per_window=config["answers_per_window"],
            beams=config["answer_beams"],
            temperature=float(config["answer_temperature"]),
            before_preference=config["condition_on"] == "answer",
            seed=config["seed"],
        )


class Drawn(NamedTuple):
    """The targets of a batch that are answered about."""

    places: Tensor  # [B, Q]    in the histories
    items: Tensor  # [B, Q]    the targets there, 0 where a row has too few
    words: Tensor  # [B]       of their right answers together

    def begins(self, prompt: Layout, rows: Tensor) -> Tensor:
        """The positions in the prompts of some rows [b] that answers begin behind [b, Q]."""
        return prompt.ends.gather(1, self.places[rows].clamp(max=prompt.ends.shape[1] - 1))


class TargetsAndAnswers(NamedTuple):
    """The targets of a batch, and what the language model learns to say about them, read in the same pass."""

    targets: Targets
    loss: Tensor  # of the words, weighted


class AnswerGenerator:
    """Has a language model say what comes next, behind the histories that it reads anyway.

    It belongs to a model, which owns the parts, and has no parameters of its own.

    Axes: B batch, L history length, Q answers a row, A words of an answer, S positions of a prompt, D width.

    Args:
        history: what reads histories.
        language: the words, and the answers that are learned.
        settings: how.

    Raises:
        ValueError: there are no answers to learn.
    """

    def __init__(self, history: HistoryEncoder, language: Language, settings: AnswerSettings):
        if language.answers is None:
            raise ValueError("there is nothing to answer")
        self.history, self.backbone, self.language, self.settings = history, history.backbone, language, settings
        self.answers = language.answers

    # in training

    def targets(self, batch: WindowBatch) -> TargetsAndAnswers:
        """The targets of a batch with the conditions before them, and the loss of the answers behind some of them."""
        batch = self.history.fitted(batch)
        drawn = self._drawn(batch.next_items)
        if self.settings.before_preference:
            return self._targets_behind_answers(batch, drawn)
        branches = []

        def states_of(item_seq: Tensor, rows: Tensor) -> Tensor:
            prompt = self.history.layout(item_seq, batch.user[rows])
            branches.append(
                self.answers.read_along(self.backbone, prompt.vectors, drawn.begins(prompt, rows), drawn.items[rows])
            )
            return self.history.condition.after_items(prompt.after_items(branches[-1].states))  # [b, L, D]

        # The longest history and the most words may be of two rows of a group: some more padding than it counts on.
        positions = self.history.positions(batch.item_seq) + drawn.words
        return TargetsAndAnswers(targets_with_states(batch, states_of, positions, waste=0.05), self._loss(branches))

    def _targets_behind_answers(self, batch: WindowBatch, drawn: Drawn) -> TargetsAndAnswers:
        """The same where an answer stands between a history and the preference: the drawn positions are the targets,
        and what comes before them are the states of answers that the model generates itself. The right answers beside
        these teach it to answer, and reach no condition."""
        answers, branches, states, places = self.answers, [], [], []
        # its own answers are about as long as the right ones
        for rows in length_groups(self.history.positions(batch.item_seq) + 2 * drawn.words):
            prompt = self.history.layout(batch.item_seq[rows, : int(batch.length[rows].max())], batch.user[rows])
            targets, begins = drawn.items[rows], drawn.begins(prompt, rows)  # [b, Q]
            right, own = answers.about(targets), self.generate(prompt, begins).answers
            own = own._replace(lengths=own.lengths * (targets > 0))  # nothing is asked behind the others
            both = Encoded(*(torch.cat(parts, dim=1) for parts in zip(right, own)))  # [b, 2 Q, A], [b, 2 Q]
            read = answers.read_words(self.backbone, prompt.vectors, torch.cat([begins, begins], dim=1), both)
            branches.append(read.first(targets.shape[1]))
            row, column = (targets > 0).nonzero(as_tuple=True)
            conditions = self.history.condition.after_answers(read.mean_states()[:, targets.shape[1] :])  # [b, Q, D]
            states.append(conditions[row, column])
            places.append(torch.stack([rows[row], drawn.places[rows[row], column]]))
        row, place = torch.cat(places, dim=1)
        found = Targets(torch.cat(states), batch.next_items[row, place], batch.item_seq, row, place)
        return TargetsAndAnswers(found, self._loss(branches))

    def _drawn(self, next_items: Tensor) -> Drawn:
        """Some targets of every row [B, L], to be answered about."""
        places = drawn_positions(next_items, self.settings.per_window)
        items = next_items.gather(1, places)
        return Drawn(places, items, self.answers.lengths[items].sum(1))

    def _loss(self, branches: list[Branches]) -> Tensor:
        """Mean over words, weighted."""
        words = torch.stack([branch.real.sum() for branch in branches])  # [groups]
        total = reduce(add, [branch.loss(self.backbone) * count for branch, count in zip(branches, words)])
        return self.settings.weight * total / words.sum().clamp(min=1)

    # in use

    def encode(
        self, item_seq: Tensor, length: Tensor, user: Tensor, answer: bool = False, log_probs: bool = False
    ) -> HistoryEncoding:
        """Read histories [B, L] of some length [B].

        Args:
            answer: generate an answer behind each.
            log_probs: take the log-probabilities of the texts of all items.
        """
        if not (answer or log_probs or self.settings.before_preference):
            return HistoryEncoding(self.history.conditions(item_seq, length, user))

        def read(prompt: Layout, length: Tensor) -> HistoryEncoding:
            return self._encode_group(prompt, length, answer, log_probs)

        at_once = self.answers.rows_at_once if log_probs else None
        return self.history.encode(item_seq, length, user, read, at_once)

    def _encode_group(self, prompt: Layout, length: Tensor, answer: bool, log_probs: bool) -> HistoryEncoding:
        """:meth:`encode` for prompts of ``length`` items [b]."""
        condition, before = self.history.condition, self.settings.before_preference
        answers, (at, last) = self.answers, condition.positions(prompt, length)
        room = max(answers.room(self.settings.beams), answers.room_for_texts if log_probs else 0)
        states, memory = self.backbone.start(prompt.vectors, at, room, prompt.shared)
        likelihoods = answers.log_probs(self.backbone, memory, last) if log_probs else None
        if not (answer or before):
            return HistoryEncoding(condition.of_last(states, last), likelihoods)
        generator = torch.Generator().manual_seed(self.settings.seed)  # on the CPU: all devices say the same
        said = self._say(memory, last[:, None], generator)  # Q = 1
        conditions = condition.after_answers(said.states[:, 0]) if before else condition.of_last(states, last)
        return HistoryEncoding(conditions, likelihoods, said.answers.numbers[:, 0])

    def generate(self, prompt: Layout, begins: Tensor) -> Generated:
        """Answers behind positions [b, Q] of prompts, without dropout also in training."""
        answers, training, number = self.answers, self.backbone.training, begins.shape[1]
        self.backbone.eval()
        try:
            room = number * answers.room(self.settings.beams)
            _, memory = self.backbone.start(prompt.vectors, begins, room, prompt.shared)
            return self._say(memory, torch.arange(number, device=begins.device).expand_as(begins))
        finally:
            self.backbone.train(training)

    def _say(self, memory: KeyValueCache, branches: Tensor, generator: torch.Generator | None = None) -> Generated:
        """Answers behind branches [b, Q] of a memory, in the way that the settings ask for."""
        end, settings = self.language.vocabulary.end, self.settings
        return self.answers.generate(
            self.backbone, memory, branches, end, settings.beams, settings.temperature, generator
        )

    def texts(self, encoding: HistoryEncoding) -> list[str]:
        """The answers of an encoding, which was asked for them."""
        if encoding.answers is None:
            raise ValueError("the histories were read without an answer")
        return self.language.vocabulary.decode(encoding.answers)

    def evidence(self, encoding: HistoryEncoding, retrieval: Retrieval) -> TextEvidence | None:
        """What the language model says for the scores of a retrieval; None where these take no notice of it."""
        log_probs = said = text_of = category_of = None
        if retrieval.text_weight:
            text_of, log_probs = self.answers.text_of, encoding.log_probs
        if retrieval.text_bonus and (categories := self.language.categories) is not None:
            said, category_of = categories.named(self.texts(encoding)), categories.category_of
        return None if log_probs is None and said is None else TextEvidence(log_probs, text_of, said, category_of)


def drawn_positions(next_items: Tensor, count: int) -> Tensor:
    """At most ``count`` targets a row, drawn at random: places [B, Q] in ``next_items`` [B, L]. Rows with fewer
    targets are filled up with places that have none."""
    chance = torch.rand(next_items.shape, device=next_items.device).masked_fill(next_items == 0, -1.0)
    return chance.topk(min(count, next_items.shape[1]), dim=1).indices
