"""
recbole_contrec.model.base.generative
#####################################
What every model shares that reads users and items as tokens, generates a preference vector and retrieves by it.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_contrec.backbone import Layout, Prompt, length_groups, rows_at_once
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.sources import check_source, vector_stages
from recbole_contrec.model.base.fitting import fitted
from recbole_contrec.model.base.settings import FitSettings
from recbole_contrec.model.base.text_generation import HistoryEncoding, TextGeneration
from recbole_contrec.model.base.windowed import Targets, Windowed
from recbole_contrec.storage.stages import Report, Stage, StageResult
from recbole_contrec.tokenizer import FoldIn

START_RMS = 0.02  # of a coordinate of an item vector that trains, before it does


class GenerativeRecommender(TextGeneration, Windowed, SequentialRecommender):
    """Base class: the stages before training, the way from a history to a state, and RecBole's methods for scores.

    An heir sets ``config``, ``item_tokenizer``, ``user_tokenizer`` and ``user_fold_in`` (or None), ``item_vectors``,
    ``identity_adapter``, ``prompt``, ``backbone`` and ``retrieval``, and defines ``stages``, ``calculate_loss``,
    ``_preferences``, ``_read_items``, ``_read_users`` and ``_set_item_tokens``.
    """

    folds_items_in = True  # whether items that were not in training can be added

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        if config["label_smoothing"] and config["ranking_negatives"]:
            raise ValueError(
                f"label_smoothing={config['label_smoothing']} spreads over the whole catalogue: set "
                "ranking_negatives=0 as well"
            )
        self.language = None  # what it reads and says in words
        self.room: int | None = None  # positions of a prompt for the history; None where all histories fit

    def train(self, mode=True):
        super().train(mode)
        self.item_tokenizer.eval()  # frozen: neither masked nor noisy where it only translates
        if self.user_tokenizer is not None:
            self.user_tokenizer.eval()
        return self

    # stages before training

    def check_sources(self, dataset) -> None:
        """Stop before anything is written where the stages lack what they are made of.

        Raises:
            UserError: says what lacks.
        """
        check_source(self.config, dataset)

    def vector_stages(self, dataset, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """The stages that fill ``vectors`` with ``users`` [U, d] and ``items`` [N, d], and with that the fold-in."""
        yield from vector_stages(self.config, dataset, vectors)
        if self.user_fold_in is not None:
            self.user_fold_in.fit(vectors["users"], vectors["items"], *dataset.histories.pairs())

    def _new_user_fold_in(self, n_user_tokens: int) -> FoldIn | None:
        """For users without a training history; None where the model reads no users, or shall not tell them apart."""
        wanted = n_user_tokens and self.config["fold_in"]
        return FoldIn(self.n_items, self.config["vector_size"]) if wanted else None

    def _pick(self, *keys):
        return {key: self.config[key] for key in keys}

    @torch.no_grad()
    def _start_item_vectors(self, vectors: Tensor) -> None:
        """Put the retrieval space at the collaborative vectors [N, d], where the settings want that."""
        if self.config["item_vectors_init"] == "vectors":
            self.item_vectors.weight.copy_(vectors)
            if self.config["train_item_vectors"]:  # small, so that training can still turn them
                self.item_vectors.weight.mul_(START_RMS)

    def _fit(self, tokenizer, vectors: Tensor, report: Report, health: Callable, **weights: float) -> StageResult:
        return fitted(
            FitSettings.from_config(self.config), tokenizer, vectors.to(self.device), report, health, **weights
        )

    # from a history to a state

    def _read(self, item_seq: Tensor, user: Tensor) -> Layout:
        """The prompts of histories [B, L] and users [B]."""
        words = self.language.words(self.backbone, item_seq) if self.language else None
        return self.prompt(self._read_users(user, item_seq), self._read_items(item_seq), words)

    def _with_identity(self, read: Tensor, items: Tensor) -> Tensor:
        """Add the learned vector of every item [B, L] to its first token in ``read`` [B, L, K, D]."""
        if not self.config["id_embedding"]:
            return read
        scale = self.item_vectors.embedding_dim**0.5
        if not self.config["train_item_vectors"]:  # of unit size, where those that train start small
            scale *= START_RMS
        identity = self.identity_adapter(self.item_vectors(items) * scale)  # [B, L, D]
        return torch.cat([read[:, :, :1] + identity[:, :, None], read[:, :, 1:]], dim=2)

    def _last_states(self, item_seq: Tensor, length: Tensor, user: Tensor) -> Tensor:
        """What the next preference is generated from after histories [B, L] of some length [B], [B, ...]."""
        return self._encode_histories(item_seq, length, user).conditions

    def _encode_histories(
        self, item_seq: Tensor, length: Tensor, user: Tensor, answer: bool = False, log_probs: bool = False
    ) -> HistoryEncoding:
        """Read histories [B, L] of some length [B]; rows of similar length are computed together."""
        item_seq, length = self._fitting(item_seq, length)
        positions = self._positions(item_seq, length)
        found, order = [], []
        for rows in length_groups(positions):
            order += rows.split(self._rows_at_once(int(positions[rows].max()), log_probs))
        for rows in order:
            longest = int(length[rows].max())
            found.append(
                self._encode_group(self._read(item_seq[rows, :longest], user[rows]), length[rows], answer, log_probs)
            )
        back = torch.cat(order).argsort()
        return HistoryEncoding(*(None if parts[0] is None else torch.cat(parts)[back] for parts in zip(*found)))

    def _rows_at_once(self, positions: int, log_probs: bool) -> int:
        """How many histories of some positions fit into memory together."""
        limits = [rows_at_once(self.prompt.prefix_length + positions, self.backbone.POSITIONS, self.device)]
        if log_probs:
            limits.append(self.language.answers.rows_at_once(positions))
        return min(limits)

    def _widths(self, item_seq: Tensor) -> Tensor:
        """Positions of the prompt that every item takes [B, L]; none for the padding."""
        words = self.language.word_counts(item_seq) if self.language else 0
        return (self.prompt.positions_per_item + words) * (item_seq > 0)

    def _positions(self, item_seq: Tensor, length: Tensor) -> Tensor:
        return self._widths(item_seq).sum(1)

    def _fitting(self, item_seq: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
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

    def _state_after(self, prompt: Layout, length: Tensor) -> Tensor:
        """The condition after the last item without any words: prompts of ``length`` items [b] -> [b, ...]."""
        at, last = self._asked(prompt, length)
        return self._condition(self.backbone.states_at(prompt.vectors, at, prompt.shared), last)

    def _asked(self, prompt: Layout, length: Tensor) -> tuple[Tensor, Tensor]:
        """The positions whose states make the condition after the last item [b, Q], and which of them is its own [b]."""
        return prompt.last(length)[:, None], torch.zeros_like(length)

    def _condition(self, states: Tensor, last: Tensor) -> Tensor:
        """From the states at these positions [b, Q, D] to the condition [b, D]."""
        return self._conditions(states)[torch.arange(len(last), device=last.device), last]

    def _conditions(self, states: Tensor) -> Tensor:
        """What the next preference is generated from: the states after the items, [B, L, D] -> [B, L, D]."""
        return states

    def _targets(self, interaction) -> Targets:
        """The targets of a batch with what ``forward`` gives before each."""
        user = interaction[self.USER_ID]
        return self._states_with_targets(interaction, lambda item_seq, rows: self.forward(item_seq, user[rows]))

    # scores

    @torch.no_grad()
    def generate(self, interaction) -> Tensor:
        """Preference vectors for the histories of a batch: [B, d], or samples [M, B, d]."""
        return self._preferences(self.encode_histories(interaction, scores=False).conditions)

    def predict(self, interaction) -> Tensor:
        """Score of one item a row [B]."""
        item_seq, item = interaction[self.ITEM_SEQ], interaction[self.ITEM_ID]  # [B, L], [B]
        # Where items are sampled, a history stands in as many rows as it has candidates, one behind the other.
        whole = torch.cat([item_seq, interaction[self.USER_ID][:, None]], dim=1)
        different, of_row = whole.unique_consecutive(dim=0, return_inverse=True)
        first = torch.searchsorted(of_row, torch.arange(len(different), device=of_row.device))
        encoding = self.encode_histories(interaction[first])
        preference, text = self._preferences(encoding.conditions)[..., of_row, :], self._text_evidence(encoding)
        return self.retrieval.paired_scores(
            preference, self.item_vectors(item), item, item_seq, text and text.of_rows(of_row)
        )

    def full_sort_predict(self, interaction) -> Tensor:
        """Scores of the whole catalogue [B, N], fresh and writable."""
        encoding = self.encode_histories(interaction)
        return self.retrieval.scores(
            self._preferences(encoding.conditions),
            self.item_vectors.weight,
            interaction[self.ITEM_SEQ],
            text=self._text_evidence(encoding),
        )

    def top_k(
        self, interaction, k: int, excluded: Tensor | None = None, encoding: HistoryEncoding | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k] of the best items, in memory that does not grow with the catalogue.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none.
            encoding: of :meth:`encode_histories`, where the batch has been read already.
        """
        encoding = encoding or self.encode_histories(interaction)
        return self.retrieval.top_k(
            self._preferences(encoding.conditions),
            self.item_vectors.weight,
            k,
            excluded,
            interaction[self.ITEM_SEQ],
            text=self._text_evidence(encoding),
        )

    # items that were not in training

    @torch.no_grad()
    def add_items(self, count: int) -> None:
        """Room for more items at the end of every table; their rows are zero."""
        self.n_items += count
        lengthen(self.item_vectors, count)
        if self.language is not None:
            self.language.add_items(count)
        if self.user_fold_in is not None:
            features = self.user_fold_in.features
            self.user_fold_in.features = torch.cat([features, features.new_zeros(count, features.shape[1])])

    @torch.no_grad()
    def retrieval_vectors(self, vectors: Tensor, known_vectors: Tensor, known: Tensor) -> Tensor:
        """Vectors in the retrieval space of items that were not in training.

        They come from the linear map that fits best from the collaborative vectors of the known items to theirs there, at
        the mean length of theirs.

        Args:
            vectors: collaborative vectors [m, d] of these items.
            known_vectors: of all items of the data set that the model was trained on [N, d].
            known: which of them were in training [N].

        Returns:
            [m, d], on the CPU.
        """
        retrieval = self.item_vectors.weight[: len(known)].cpu()[known]  # [n, d]
        inputs = _with_one(known_vectors[known]).double()  # [n, d + 1]
        # gelsd: columns beyond the rank of the vectors are zero, which the default on GPUs does not bear
        solution = torch.linalg.lstsq(inputs, retrieval.double(), driver="gelsd").solution.float()
        return F.normalize(_with_one(vectors) @ solution, dim=-1) * retrieval.norm(dim=-1).mean()

    @torch.no_grad()
    def set_items(self, items: Tensor, vectors: Tensor, retrieval: Tensor) -> None:
        """Write items [m] that were not in training: tokens from their collaborative vectors [m, d], and their vectors in
        the retrieval space [m, d]."""
        items = items.to(self.device)
        self.item_vectors.weight[items] = retrieval.to(self.device)
        self._set_item_tokens(items, vectors.to(self.device))


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


@torch.no_grad()
def lengthen(table: nn.Embedding, count: int) -> None:
    """Add rows of zeros to a table."""
    rows = table.weight.new_zeros(count, table.embedding_dim)
    table.weight = nn.Parameter(torch.cat([table.weight, rows]), requires_grad=table.weight.requires_grad)
    table.num_embeddings += count


def rms_of_rows(vectors: Tensor) -> Tensor:
    """Root mean square of the coordinates of the rows [N, d] that are not zero, a scalar."""
    squares = vectors.square().sum(1)  # [N]
    return (squares.sum() / (vectors.shape[1] * (squares > 0).sum())).sqrt()


def _with_one(vectors: Tensor) -> Tensor:
    return torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)
