"""
recbole_contrec.model.speaking
##############################
What words add to a model: answers that are learned beside the preferences, generated, and heard in the scores.
"""

import torch
from torch import Tensor

from recbole_contrec.model.language import Language, drawn_positions
from recbole_contrec.model.windowed import Targets
from recbole_contrec.retrieval import TextEvidence


class Speaking:
    """Mixin of :class:`~recbole_contrec.model.generative.GenerativeRecommender`, which it asks for prompts, conditions and
    states. ``language`` may be None: then nothing is said, and scores are those of the vectors alone."""

    language: Language | None

    @property
    def can_answer(self) -> bool:
        """Whether it learns to say what comes next."""
        return self.language is not None and self.language.answers is not None

    @torch.no_grad()
    def answers(self, interaction) -> list[str]:
        """What the language model says about the next item of every history of a batch, word by word the likeliest.

        Raises:
            ValueError: it does not learn to answer.
        """
        if not self.can_answer:
            raise ValueError("this model has not learned to answer: train it with answer_weight above 0")
        vocabulary = self.language.vocabulary
        return vocabulary.decode(self._after_histories(
            lambda prompt, length: self.language.answers.generate(self.backbone, prompt.vectors, prompt.last(length),
                                                                  vocabulary.end), interaction))

    def _targets_and_language(self, interaction) -> tuple[Targets, Tensor]:
        """The targets of a batch, and the weighted loss of the answers behind some of them, computed in the same pass."""
        if not self.can_answer:
            targets = self._targets(interaction)
            return targets, targets.states.new_zeros(())
        user, branches = interaction[self.USER_ID], []
        _, next_items = self._fitting(interaction[self.ITEM_SEQ], self._next_items(interaction))    # [B, L]

        def states_of(item_seq: Tensor, rows: Tensor) -> Tensor:
            prompt = self._read(item_seq, user[rows])
            wanted = next_items[rows, :item_seq.shape[1]]                         # [b, L]
            drawn = drawn_positions(wanted, self.config["answers_per_window"])    # [b, Q]
            branches.append(self.language.answers.read_along(
                self.backbone, prompt.vectors, prompt.ends.gather(1, drawn), wanted.gather(1, drawn)))
            return self._conditions(prompt.after_items(branches[-1].states))      # [b, L, D]

        targets = self._states_with_targets(interaction, states_of)
        words = [branch.real.sum() for branch in branches]
        loss = sum(branch.loss(self.backbone) * count for branch, count in zip(branches, words)) / sum(words).clamp(min=1)
        return targets, self.config["answer_weight"] * loss

    def _text_evidence(self, interaction) -> TextEvidence | None:
        """What the language model says for the scores; None where they take no notice of it."""
        log_probs = said = text_of = category_of = None
        if self.retrieval.text_weight:
            answers = self.language.answers
            text_of, log_probs = answers.text_of, self._after_histories(
                lambda prompt, length: answers.log_probs(self.backbone, prompt.vectors, prompt.last(length)), interaction)
        if self.retrieval.text_bonus:
            categories = self.language.categories
            said, category_of = categories.named(self.answers(interaction)), categories.category_of
        return None if log_probs is None and said is None else TextEvidence(log_probs, text_of, said, category_of)
