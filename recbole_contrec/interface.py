"""
recbole_contrec.interface
#########################
What callers may ask of a model beyond RecBole's ``calculate_loss``, ``predict`` and ``full_sort_predict``.

A model offers what it can by having the methods of a protocol below; it inherits from none. Callers ask with
``isinstance``: ``if isinstance(model, RanksInBoundedMemory): model.top_k(...)``.

Axes: B batch, N items, d width of an item vector, E excluded items, W beams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction


# before anything is loaded


@runtime_checkable
class ChecksSettings(Protocol):
    """A class of models that tells which settings cannot go together."""

    @staticmethod
    def check_settings(config: Any) -> None:
        """Stop where settings contradict each other. Asked before data are loaded, and by the constructor again.

        Raises:
            ValueError: names them.
        """


@runtime_checkable
class ChecksUnread(Protocol):
    """A class of models that tells which settings of a run nothing would read."""

    @staticmethod
    def check_unread(config: Any) -> None:
        """Refuse what the user has set and nothing reads, or say so. Asked of a new run alone, before data and models
        are loaded: checkpoints hold all settings as given ones.

        Raises:
            UserError: names the settings and what they need.
        """


# stages before training

Report = Callable[[int, int, str], None]  # report(done, total, "reconstruction .021")


class StageResult(NamedTuple):
    """What a stage leaves behind: tensors for the model, figures for the log and the result file."""

    tensors: dict[str, Tensor]
    report: dict[str, Any]


class Stage(NamedTuple):
    """One stage of a model.

    Attributes:
        name: as shown to the user.
        settings: everything but the data that the result depends on, JSON-like.
        build: does the work; calls its argument to report progress.
        accept: hands the tensors to the model; called whether they were built or found on disk.
    """

    name: str
    settings: dict[str, Any]
    build: Callable[[Report], StageResult]
    accept: Callable[[dict[str, Tensor]], None]


@runtime_checkable
class HasStages(Protocol):
    """A model that needs item vectors, tokenizers or the like before it can be trained."""

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """The stages in order; the next one is asked for when the one before has been accepted."""

    def check_sources(self, dataset: Any) -> None:
        """Stop before anything is written where the stages lack what they are made of.

        Raises:
            UserError: says what is missing.
        """


# training


class CountsTargets(Protocol):
    """What the trainer asks of a model's windows."""

    def count_targets(self, interaction: Interaction) -> int:
        """Targets of a training batch."""


@runtime_checkable
class TrainsOnWindows(Protocol):
    """A model whose batches are windows of whole histories; its loss is a NamedTuple of weighted terms."""

    windows: CountsTargets

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Weighted terms, whose sum is minimised."""


@runtime_checkable
class NamesParametersWithoutDecay(Protocol):
    """A module with parameters of two or more dimensions that are no matrices; the name is that of timm's hook."""

    def no_weight_decay(self) -> set[str]:
        """Names of these parameters within the module."""


@runtime_checkable
class ChosenOnValidation(Protocol):
    """A part of a model with a setting that no loss trains: where it is left open, the trainer tries its values with
    the weights that validated best, and keeps the best one."""

    @property
    def candidates(self) -> tuple[str, Sequence[float]]:
        """The setting, and the values to choose from; none where the setting is given."""

    def choose(self, value: float) -> None:
        """Take one of them."""


@runtime_checkable
class Exports(Protocol):
    """A module that other tools can read, in a format of their own beside the checkpoint."""

    def exports(self) -> dict[str, Callable[[Path], None]]:
        """For every folder beside the checkpoint what writes it."""


class Refined(NamedTuple):
    """Semantic ids after a refinement, and what it changed."""

    codes: Tensor  # [N, K]
    report: dict[str, Any]
    vectors: Tensor | None = None  # [N, D] that they quantise, states of the model; None where they were not made so
    counts: Tensor | None = None  # [N] how often each item is a target


@runtime_checkable
class RefinesSemanticIds(Protocol):
    """A model that can improve the semantic ids of its items between rounds of training."""

    def refine(self, batches: Iterable[Interaction]) -> Refined:
        """Semantic ids made anew from what the model has learned; the model stays as it is.

        Args:
            batches: of training.

        Raises:
            ValueError: the settings of the model leave semantic ids as they are.
        """

    def adopt(self, refined: Refined) -> None:
        """Give the items other semantic ids."""


# ranking


@runtime_checkable
class RanksInBoundedMemory(Protocol):
    """A model that finds the best items without a table of all scores."""

    def top_k(self, interaction: Interaction, k: int, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k], best first; -inf and 0 where too few are left.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none.
        """


@runtime_checkable
class ReadsHistoriesOnce(RanksInBoundedMemory, Protocol):
    """A model whose reading of histories can be kept and used for several questions."""

    def encode_histories(self, interaction: Interaction) -> Any:
        """Read the histories of a batch, each once."""

    def top_k(
        self, interaction: Interaction, k: int, excluded: Tensor | None = None, encoding: Any = None
    ) -> tuple[Tensor, Tensor]:
        """As in :class:`RanksInBoundedMemory`, of an encoding where there is one."""


@runtime_checkable
class RanksByItemVectors(ReadsHistoriesOnce, Protocol):
    """A model whose lists may come from an index over item vectors: its scores are products of a preference with these
    and further terms, and :meth:`top_k` asks its ``retrieval`` for them."""

    retrieval: Any
    item_vectors: Any


@runtime_checkable
class GeneratesPreferences(Protocol):
    """A model whose scores are products of a preference with the vectors of the items, and further terms of its
    ``retrieval``."""

    @property
    def retrieval(self) -> Any:
        """From preferences and item vectors to scores."""

    @property
    def item_vectors(self) -> Any:
        """The table whose ``weight`` [N, d] these are."""

    def generate_preferences(self, interaction: Interaction) -> Tensor:
        """Preference vectors [B, d], or samples [M, B, d], for the histories of a batch."""


@runtime_checkable
class ReadsHistoriesInOnePass(GeneratesPreferences, Protocol):
    """A model that goes from histories to preferences in one pass of tensors, whatever their lengths: what a graph for
    other programs is made of."""

    def no_single_pass(self) -> str | None:
        """Why its settings have no such pass; None where they have one."""

    def preference_in_one_pass(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """Preference vectors [B, d] of people who are not in the data, by histories [B, L] of some length [B]."""


@runtime_checkable
class AnswersInWords(ReadsHistoriesOnce, Protocol):
    """A model that may say what comes next. ``can_answer`` tells whether it was trained to."""

    def encode_histories(self, interaction: Interaction, scores: bool = True, answer: bool = False) -> Any:
        """Read the histories of a batch, each once.

        Args:
            scores: take what rankings need; otherwise what a preference is generated from alone.
            answer: take what :meth:`answers` needs.
        """

    @property
    def can_answer(self) -> bool:
        """Whether it learns to say what comes next."""

    def answers(self, interaction: Interaction, encoding: Any = None) -> list[str]:
        """One answer for every history of a batch.

        Raises:
            ValueError: it has not learned to answer.
        """


@runtime_checkable
class GeneratesSemanticIds(RanksInBoundedMemory, Protocol):
    """A model that writes the semantic id of the next item by beam search: what is left out must hold no place of a
    beam, so an evaluation tells it beforehand, in the field ``SEEN_ITEMS`` of a batch."""

    @property
    def generates_seen(self) -> bool | None:
        """Whether items of the history may be generated; None where the model leaves that to ``mask_seen``."""

    def generate(self, interaction: Interaction, width: int | None = None, excluded: Tensor | None = None) -> Any:
        """The likeliest next items [B, W] and their log-probabilities.

        Args:
            width: W; the model's own number of beams if not given.
            excluded: item numbers [B, E] not to be generated, 0 = none.
        """


@runtime_checkable
class HasItemCodes(Protocol):
    """A model whose items have discrete codes."""

    @property
    def code_table(self) -> Any:
        """With the ``codes`` of every item [N, K], and ``unknown_code`` where an item has none."""


ITEMS, USERS = "items", "users"


@runtime_checkable
class HasRows(Protocol):
    """A module with tensors of one row for every item, or every user, of the data."""

    def rows(self) -> dict[str, str]:
        """``ITEMS`` or ``USERS`` by the names of these tensors within the module. What is computed from the data and
        never learned does not stand there."""


# new items


@runtime_checkable
class FoldsUsersIn(Protocol):
    """A model that reads users, and may make vectors of those who were not in training."""

    @property
    def user_fold_in(self) -> Any:
        """What makes vectors of users out of the histories that they bring, with its fit in ``features``; None for a
        model that does not tell users apart."""


@runtime_checkable
class FoldsItemsIn(FoldsUsersIn, ReadsHistoriesOnce, Protocol):
    """A model that takes items that were not in training."""

    @property
    def text_vectors(self) -> Tensor | None:
        """By which the texts of items are compared [N, w], for writing as well; None where they are not."""

    def vector_stages(self, dataset: Any, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """The stages that fill ``vectors`` with ``users`` [U, d] and ``items`` [N, d], and fit :attr:`user_fold_in`."""

    def reads_items_as(self, vectors: Tensor) -> bool:
        """Whether the tokens of the items are those of collaborative vectors [N, d]; else training had others."""

    def retrieval_vectors(self, vectors: Tensor, known_vectors: Tensor, known: Tensor) -> Tensor:
        """Vectors [m, d] in the retrieval space of items that were not in training.

        Args:
            vectors: collaborative vectors [m, d] of these items.
            known_vectors: of all items of the data set that the model was trained on [N, d].
            known: which of them were in training [N].
        """

    def add_items(self, count: int) -> None:
        """Room for more items at the end of every table."""

    def set_items(self, items: Tensor, vectors: Tensor, retrieval: Tensor) -> None:
        """Write items [m]: tokens from their collaborative vectors [m, d], and their vectors [m, d] for retrieval."""

    def hold_back(self, penalty: Tensor | None) -> None:
        """Take a penalty [N] off the scores of the items; None for no penalty."""
