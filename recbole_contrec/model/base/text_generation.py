"""
recbole_contrec.model.base.text_generation
##########################################
What words add to a model: answers that are learned beside the preferences, generated, and used in the scores.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_contrec.backbone import Branches, Encoded, Generated, KeyValueCache, Layout, length_groups
from recbole_contrec.model.base.answering import drawn_positions
from recbole_contrec.model.base.language import Language
from recbole_contrec.model.base.windowed import Targets
from recbole_contrec.retrieval import TextEvidence


class HistoryEncoding(NamedTuple):
    """What one reading of the histories of a batch gives; None for what was not asked for."""

    conditions: Tensor  # [B, ...]          what the next preference is generated from
    log_probs: Tensor | None = None  # [B, 1 + texts]    of the texts of the items, by `Answers.text_of`
    answers: Tensor | None = None  # [B, A]            words of the generated answer


class Drawn(NamedTuple):
    """The targets of a batch that are answered about."""

    places: Tensor  # [B, Q]    in the histories
    items: Tensor  # [B, Q]    the targets there, 0 where a row has too few
    words: Tensor  # [B]       of their right answers together

    def begins(self, prompt: Layout, rows: Tensor) -> Tensor:
        """The positions in the prompts of some rows [b] that answers begin behind [b, Q]."""
        return prompt.ends.gather(1, self.places[rows].clamp(max=prompt.ends.shape[1] - 1))


class TextGeneration:
    """Mixin of :class:`~recbole_contrec.model.base.generative.GenerativeRecommender`, which it asks for prompts, conditions and
    states. ``language`` may be None: then nothing is said, and scores are those of the vectors alone."""

    language: Language | None

    @property
    def can_answer(self) -> bool:
        """Whether it learns to say what comes next."""
        return self.language is not None and self.language.answers is not None

    @torch.no_grad()
    def encode_histories(self, interaction, scores: bool = True, answer: bool = False) -> HistoryEncoding:
        """Read the histories of a batch, each once.

        Args:
            scores: take what :meth:`full_sort_predict`, :meth:`top_k` and :meth:`predict` need; otherwise the conditions alone.
            answer: take what :meth:`answers` needs.
        """
        return self._encode_histories(
            interaction[self.ITEM_SEQ],
            interaction[self.ITEM_SEQ_LEN],
            interaction[self.USER_ID],
            answer=answer or scores and bool(self.retrieval.text_bonus),
            log_probs=scores and bool(self.retrieval.text_weight),
        )

    @torch.no_grad()
    def answers(self, interaction, encoding: HistoryEncoding | None = None) -> list[str]:
        """What the language model says about the next item of every history of a batch.

        Args:
            encoding: of :meth:`encode_histories`, with the answer.

        Raises:
            ValueError: it does not learn to answer.
        """
        if not self.can_answer:
            raise ValueError("this model has not learned to answer: train it with answer_weight above 0")
        return self.language.vocabulary.decode(
            (encoding or self.encode_histories(interaction, scores=False, answer=True)).answers
        )

    def _encode_group(self, prompt: Layout, length: Tensor, answer: bool, log_probs: bool) -> HistoryEncoding:
        """:meth:`encode_histories` for prompts of ``length`` items [b]."""
        before_condition = self.config["condition_on"] == "answer"
        if not (answer or log_probs or before_condition):
            return HistoryEncoding(self._state_after(prompt, length))
        answers, (at, last) = self.language.answers, self._asked(prompt, length)
        room = max(answers.room(self.config["answer_beams"]), answers.room_for_texts if log_probs else 0)
        states, memory = self.backbone.start(prompt.vectors, at, room, prompt.shared)
        likelihoods = answers.log_probs(self.backbone, memory, last) if log_probs else None
        if not (answer or before_condition):
            return HistoryEncoding(self._condition(states, last), likelihoods)
        generator = torch.Generator().manual_seed(self.config["seed"])  # on the CPU: all devices say the same
        said = self._say(memory, last[:, None], generator)  # Q = 1
        condition = self._answer_conditions(said.states[:, 0]) if before_condition else self._condition(states, last)
        return HistoryEncoding(condition, likelihoods, said.answers.numbers[:, 0])

    def _generated(self, prompt: Layout, begins: Tensor) -> Generated:
        """Answers behind positions [b, Q], without dropout also in training."""
        answers, training, number = self.language.answers, self.backbone.training, begins.shape[1]
        self.backbone.eval()
        try:
            room = number * answers.room(self.config["answer_beams"])
            _, memory = self.backbone.start(prompt.vectors, begins, room, prompt.shared)
            return self._say(memory, torch.arange(number, device=begins.device).expand_as(begins))
        finally:
            self.backbone.train(training)

    def _say(self, memory: KeyValueCache, branches: Tensor, generator: torch.Generator | None = None) -> Generated:
        """Answers behind branches [b, Q] of a memory, in the way that the settings ask for."""
        return self.language.answers.generate(
            self.backbone,
            memory,
            branches,
            self.language.vocabulary.end,
            self.config["answer_beams"],
            float(self.config["answer_temperature"]),
            generator,
        )

    def _targets_and_language(self, interaction) -> tuple[Targets, Tensor]:
        """The targets of a batch, and the weighted loss of the answers behind some of them, computed in the same pass."""
        if not self.can_answer:
            targets = self._targets(interaction)
            return targets, targets.states.new_zeros(())
        if self.config["condition_on"] == "answer":
            return self._targets_behind_answers(interaction)
        user, branches = interaction[self.USER_ID], []
        drawn = self._drawn(self._fitting(interaction[self.ITEM_SEQ], self._next_items(interaction))[1])

        def states_of(item_seq: Tensor, rows: Tensor) -> Tensor:
            prompt = self._read(item_seq, user[rows])
            branches.append(
                self.language.answers.read_along(
                    self.backbone, prompt.vectors, drawn.begins(prompt, rows), drawn.items[rows]
                )
            )
            return self._conditions(prompt.after_items(branches[-1].states))  # [b, L, D]

        return self._states_with_targets(interaction, states_of, drawn.words), self._language_loss(branches)

    def _targets_behind_answers(self, interaction) -> tuple[Targets, Tensor]:
        """The same where an answer stands between a history and the preference: the drawn positions are the targets, and what
        comes before them are the states of answers that the model generates itself. The right answers beside these teach
        it to answer, and reach no condition."""
        item_seq, length, next_items = self._fitting(
            interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], self._next_items(interaction)
        )
        answers, user, branches, states, places = self.language.answers, interaction[self.USER_ID], [], [], []
        drawn = self._drawn(next_items)
        for rows in length_groups(
            self._positions(item_seq, length) + 2 * drawn.words
        ):  # its own answers are about as long
            prompt = self._read(item_seq[rows, : int(length[rows].max())], user[rows])
            wanted, begins = drawn.items[rows], drawn.begins(prompt, rows)  # [b, Q]
            right, own = answers.about(wanted), self._generated(prompt, begins).answers
            own = own._replace(lengths=own.lengths * (wanted > 0))  # nothing is asked behind the others
            both = Encoded(*(torch.cat(parts, dim=1) for parts in zip(right, own)))  # [b, 2 Q, A], [b, 2 Q]
            read = answers.read_words(self.backbone, prompt.vectors, torch.cat([begins, begins], dim=1), both)
            branches.append(read.first(wanted.shape[1]))
            row, column = (wanted > 0).nonzero(as_tuple=True)
            states.append(
                self._answer_conditions(read.mean_states()[:, wanted.shape[1] :])[row, column]
            )  # of [b, Q, D]
            places.append(torch.stack([rows[row], drawn.places[rows[row], column]]))
        row, place = torch.cat(places, dim=1)
        return Targets(torch.cat(states), next_items[row, place], item_seq, row, place), self._language_loss(branches)

    def _drawn(self, next_items: Tensor) -> "Drawn":
        """Some targets of every row [B, L], to be answered about."""
        places = drawn_positions(next_items, self.config["answers_per_window"])
        items = next_items.gather(1, places)
        return Drawn(places, items, self.language.answers.lengths[items].sum(1))

    def _language_loss(self, branches: list[Branches]) -> Tensor:
        """Mean over words, weighted."""
        words = [branch.real.sum() for branch in branches]
        total = sum(branch.loss(self.backbone) * count for branch, count in zip(branches, words))
        return self.config["answer_weight"] * total / sum(words).clamp(min=1)

    def _answer_conditions(self, states: Tensor) -> Tensor:
        """What the next preference is generated from: mean states of answers, [..., D] -> [..., D]."""
        return states

    def _text_evidence(self, encoding: HistoryEncoding) -> TextEvidence | None:
        """What the language model says for the scores; None where they take no notice of it."""
        log_probs = said = text_of = category_of = None
        if self.retrieval.text_weight:
            text_of, log_probs = self.language.answers.text_of, encoding.log_probs
        if self.retrieval.text_bonus:
            categories = self.language.categories
            said, category_of = (
                categories.named(self.language.vocabulary.decode(encoding.answers)),
                categories.category_of,
            )
        return None if log_probs is None and said is None else TextEvidence(log_probs, text_of, said, category_of)
