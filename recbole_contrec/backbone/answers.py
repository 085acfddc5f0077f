"""
recbole_contrec.backbone.answers
################################
What a language model says about the item that comes next. An answer is a branch behind a position of the history: it
sees the history up to there and its own words, and nothing of the history sees it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone.decoder import KeyValueCache
from recbole_contrec.backbone.language_model import LanguageModel
from recbole_contrec.backbone.positions import states_of
from recbole_contrec.backbone.vocabulary import Encoded


class Branches(NamedTuple):
    """A forward pass over prompts and the answers behind some of their positions."""

    states: Tensor  # [B, S, D]     of the prompt, as without answers
    answer_states: Tensor  # [B, Q, A, D]  that predict the words of an answer, zero behind its end
    numbers: Tensor  # [B, Q, A]     these words
    real: Tensor  # [B, Q, A]     false behind the end

    def first(self, count: int) -> "Branches":
        """The first ``count`` answers of every row."""
        return Branches(self.states, self.answer_states[:, :count], self.numbers[:, :count], self.real[:, :count])

    def mean_states(self) -> Tensor:
        """Mean of the states that predict the words of an answer: [B, Q, D]."""
        return self.answer_states.sum(2) / self.real.sum(2, keepdim=True).clamp(min=1)

    def loss(self, backbone: LanguageModel) -> Tensor:
        """Cross entropy of the words, the mean over words; 0 without any."""
        if not self.real.any():
            return self.answer_states.new_zeros(())
        return F.cross_entropy(backbone.word_logits(self.answer_states[self.real]), self.numbers[self.real])


class Generated(NamedTuple):
    """Answers in a model's own words."""

    answers: Encoded  # [B, Q, A] and [B, Q]; the end mark stands behind the end as well
    states: Tensor  # [B, Q, D]     mean of the states that their words came from


class _Level(NamedTuple):
    """The words at one place of all distinct texts, a node for every beginning of a text. All texts end with the end
    mark, so that a node either goes on or is the end of one text."""

    parents: Tensor  # [W]           among the nodes of the level above that go on
    numbers: Tensor  # [W]           the word that leads here
    on: Tensor  # [W']          nodes that go on
    over: Tensor  # [W - W']      nodes at which a text ends
    texts: Tensor  # [W - W']      numbers of these texts


class _Distinct(NamedTuple):
    """The different texts among all answers, in parts that are read one after the other: each a trie of its own."""

    n_texts: int
    text_of: Tensor  # [N]
    parts: list[list[_Level]]


class Answers(nn.Module):
    """The texts that a language model may say about items, one an item; items may share one.

    The backbone is handed in by the caller. It has ``forward(inputs, positions, visible, prompt)``, ``step``, ``read``
    and ``word_logits``.

    Args:
        encoded: the answer about every item [N, A], each with an end mark. About an item without a text (an end mark
            and nothing else) nothing is learned and nothing is said.
        hidden_size: width of the language model (D).

    Raises:
        ValueError: no item has a text.
    """

    numbers: Tensor
    lengths: Tensor

    MEMORY = 2**25  # word scores computed at once, as a number of floats
    PLACES = 2**27  # of a mask at once, by which the beginnings of a part of the texts see each other, a byte each
    PART = 1024  # beginnings of texts that are read together, about: each is compared with all others of its part

    def __init__(self, encoded: Encoded, hidden_size: int):
        super().__init__()
        self.begin = nn.Parameter(0.1 * torch.randn(hidden_size))  # is read in front of the first word
        self.register_buffer("numbers", encoded.numbers)
        self.register_buffer("lengths", encoded.lengths.masked_fill(encoded.lengths == 1, 0))
        if not self.lengths.any():
            raise ValueError("no item has a text: there is nothing to answer")
        self._distinct: _Distinct | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module.forget())

    @property
    def longest(self) -> int:
        """Words of the longest answer (A), the end mark included."""
        return self.numbers.shape[1]

    @property
    def beginnings(self) -> int:
        """Different beginnings of the texts, with the empty one, counted part by part: positions that :meth:`log_probs`
        reads."""
        return sum(map(_beginnings, self._texts().parts))

    @property
    def room_for_texts(self) -> int:
        """Positions that :meth:`log_probs` writes at once."""
        return max(map(_beginnings, self._texts().parts))

    def rows_at_once(self, positions: int) -> int:
        """Prompts of some positions for which :meth:`log_probs` fits into memory."""
        return max(1, self.PLACES // (self.room_for_texts * (positions + self.room_for_texts)))

    @property
    def text_of(self) -> Tensor:
        """Number of the distinct text of every item [N], 0 = none."""
        return self._texts().text_of

    def add_items(self, count: int) -> None:
        """More items at the end of the table, without texts."""
        self.numbers = torch.cat([self.numbers, self.numbers.new_zeros(count, self.longest)])
        self.lengths = torch.cat([self.lengths, self.lengths.new_zeros(count)])
        self.forget()

    def forget(self) -> None:
        """What was derived from the answers is derived again: they have changed."""
        self._distinct = None

    def _texts(self) -> "_Distinct":
        if self._distinct is None or self._distinct.text_of.device != self.numbers.device:
            keys = self.numbers.masked_fill(~Encoded(self.numbers, self.lengths).real(), -1)
            distinct, text_of = keys.unique(dim=0, return_inverse=True)  # [1 + texts, A], no text comes first
            self._distinct = _Distinct(len(distinct) - 1, text_of, _parts(distinct[1:], self.PART))
        return self._distinct

    # training

    def read_along(self, backbone: LanguageModel, prompt: Tensor, begins: Tensor, items: Tensor) -> Branches:
        """Read prompts and, in the same pass, the answers about some items behind some of their positions.

        Args:
            prompt: vectors [B, S, D], padded at the end.
            begins: the positions behind which answers begin [B, Q].
            items: what they are about [B, Q], 0 = nothing.
        """
        return self.read_words(backbone, prompt, begins, self.about(items))

    def about(self, items: Tensor) -> Encoded:
        """The answers about items [...]: [..., A] and [...]."""
        return Encoded(self.numbers[items], self.lengths[items])

    def read_words(self, backbone: LanguageModel, prompt: Tensor, begins: Tensor, answers: Encoded) -> Branches:
        """:meth:`read_along` with any answers: numbers [B, Q, A], lengths [B, Q]. Only words that there are take a
        position."""
        numbers, real = answers.numbers, answers.real()  # [B, Q, A]
        trunk, packed = prompt.shape[1], _packed(begins, real)
        row, answer, word = real.nonzero(as_tuple=True)  # [n]
        before = backbone.read(numbers[row, answer, (word - 1).clamp(min=0)])  # [n, D]
        vectors = torch.where((word == 0)[:, None], self.begin.to(before.dtype), before)
        branches = prompt.new_zeros(*packed.begins.shape, prompt.shape[2]).index_put(
            (row, packed.place[row, answer, word]), vectors.to(prompt.dtype)
        )  # [B, W, D]
        positions, visible = _laid_out(trunk, packed)
        states = backbone(torch.cat([prompt, branches], dim=1), positions, visible, trunk)  # [B, S + W, D]
        said = states_of(states[:, trunk:], packed.place.flatten(1)).unflatten(1, real.shape[1:])  # [B, Q, A, D]
        return Branches(states[:, :trunk], said.masked_fill(~real[..., None], 0.0), numbers, real)

    # what is said

    @torch.no_grad()
    def log_probs(self, backbone: LanguageModel, memory: KeyValueCache, branch: Tensor) -> Tensor:
        """Log-probability of every distinct text.

        Args:
            memory: of the backbone's ``start``, with room for :attr:`room_for_texts`.
            branch: the one behind which the texts are read [B].

        Returns:
            Tensor: [B, 1 + texts] by :attr:`text_of`. In front stands what an item without a text gets: what a text
                drawn by these probabilities gets on average, so that the item neither gains nor loses.
        """
        batch, (n_texts, _, parts) = len(branch), self._texts()
        found = self.begin.new_zeros(batch, 1 + n_texts)
        for levels in parts:
            inputs, parents, reached = self.begin.expand(batch, 1, -1), branch[:, None], memory
            so_far = self.begin.new_zeros(batch, 1)  # [B, W'], of the nodes that go on
            for level in levels:
                states, reached = backbone.step(reached, inputs, parents)  # [B, W', D]
                log_probs = so_far[:, level.parents] + self._next(backbone, states, level)  # [B, W]
                found[:, level.texts] = log_probs[:, level.over]
                so_far = log_probs[:, level.on]
                inputs = backbone.read(level.numbers[level.on]).expand(batch, -1, -1)
                parents = level.parents[level.on].expand(batch, -1)
        texts = found[:, 1:]
        found[:, 0] = (texts.softmax(1) * texts).sum(1)
        return found

    def _next(self, backbone: LanguageModel, states: Tensor, level: _Level) -> Tensor:
        """Log-probabilities of the words of a level after the nodes above it: states [B, W', D] -> [B, W]."""
        rows = []
        for part in states.split(max(1, self.MEMORY // (states.shape[1] * backbone.n_words))):
            log_probs = backbone.word_logits(part).float().log_softmax(-1)  # [b, W', V]
            rows.append(log_probs[:, level.parents, level.numbers])
        return torch.cat(rows)

    def room(self, beams: int = 1) -> int:
        """Positions that :meth:`generate` writes behind one branch."""
        return 1 + (self.longest - 1) * beams

    @torch.no_grad()
    def generate(
        self,
        backbone: LanguageModel,
        memory: KeyValueCache,
        branches: Tensor,
        end: int,
        beams: int = 1,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> "Generated":
        """Write an answer behind each of some branches, until the end mark.

        Args:
            memory: of the backbone's ``start``, with room for Q times :meth:`room`.
            branches: those behind which answers begin [B, Q].
            end: number of the end mark.
            beams: W beginnings that stay alive; the likeliest of the answers that they lead to is said. 1 takes the
                likeliest word at every place: of several words that begin many answers each, the whole answers may all
                be rare.
            temperature: above 0 words are drawn, by their log-probabilities over it; then ``beams`` is 1.
            generator: of the draws, on any device; all branches share them, so that no answer depends on what else is
                asked. Without it every branch has its own.
        """
        batch, n_answers = branches.shape
        said = self.numbers.new_zeros(batch, n_answers, 1, 0)  # [B, Q, W, words so far]
        scores = self.begin.new_zeros(batch, n_answers, 1)  # [B, Q, W]
        alive, total = torch.ones_like(scores, dtype=torch.bool), scores[..., None]  # of the states, [B, Q, W, D]
        length = torch.zeros_like(scores, dtype=torch.long)
        inputs, parents = self.begin.expand(batch, n_answers, -1), branches
        while said.shape[3] < self.longest and alive[:, :, 0].any():  # what is ahead and has ended is not overtaken
            state, memory = backbone.step(memory, inputs, parents)  # [B, Q W, D]
            state = state.unflatten(1, (n_answers, -1))  # [B, Q, W, D]
            total, length = total + state * alive[..., None], length + alive
            going_on = backbone.word_logits(state[alive]).float().log_softmax(-1)  # [alive, V]
            if temperature:
                going_on = going_on / temperature + _gumbel(going_on, generator)
            words = going_on.shape[-1]
            log_probs = going_on.new_full((*alive.shape, words), -torch.inf)  # [B, Q, W, V]
            log_probs[..., end] = 0.0  # an answer that has ended stays as it is
            log_probs[alive] = going_on
            ahead = (scores[..., None] + log_probs).flatten(2)  # [B, Q, W V]
            scores, best = ahead.topk(min(beams, ahead.shape[2]), dim=2)  # [B, Q, W']
            beam, word = best // words, best % words
            alive, length = alive.gather(2, beam) & (word != end), length.gather(2, beam)
            said, total = (part.gather(2, beam[..., None].expand(-1, -1, -1, part.shape[3])) for part in (said, total))
            said = torch.cat([said, word[..., None]], dim=3)
            inputs = backbone.read(word).flatten(1, 2)  # [B, Q W', D]
            parents = (state.shape[2] * torch.arange(n_answers, device=word.device)[:, None] + beam).flatten(1)
        numbers = F.pad(said[:, :, 0], (0, self.longest - said.shape[3]), value=end)
        return Generated(Encoded(numbers, length[:, :, 0]), total[:, :, 0] / length[:, :, 0, None])


def _gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """What makes the largest of some log-probabilities [..., V] a draw by them: noise for each of them, or with a
    generator [V] for all."""
    if generator is None:
        uniform = torch.rand_like(like)
    else:  # drawn where the generator lives, so that all devices draw the same
        uniform = torch.rand(like.shape[-1:], generator=generator, device=generator.device).to(like.device)
    return -(-uniform.clamp(min=1e-20).log()).log()


class _Packed(NamedTuple):
    """The words of all answers of a row beside each other, W places a row."""

    place: Tensor  # [B, Q, A]     of every word; of what is no word any place
    begins: Tensor  # [B, W]        position that the answer of a place begins behind; 0 for the padding at the end
    answer: Tensor  # [B, W]        number of that answer; -1 for the padding
    word: Tensor  # [B, W]        which of its words stands there


def _packed(begins: Tensor, real: Tensor) -> _Packed:
    """Places for answers behind some positions [B, Q], whose words are these [B, Q, A]."""
    lengths = real.sum(2)  # [B, Q]
    size = max(int(lengths.sum(1).max()), 1)  # W
    place = (lengths.cumsum(1) - lengths)[..., None] + torch.arange(real.shape[2], device=real.device)
    row, answer, word = real.nonzero(as_tuple=True)
    at = row, place[row, answer, word]
    none = begins.new_zeros(len(begins), size)
    return _Packed(
        place.clamp(max=size - 1),
        none.index_put(at, begins[row, answer]),
        (none - 1).index_put(at, answer),
        none.index_put(at, word),
    )


def _laid_out(trunk: int, packed: _Packed) -> tuple[Tensor, Tensor]:
    """Where the words of answers stand behind a prompt of S vectors, and what they see.

    Args:
        trunk: S.

    Returns:
        tuple: position numbers [B, S + W], and which places each place sees [B, S + W, S + W].
    """
    begins, answer, word = packed.begins, packed.answer, packed.word
    places = torch.arange(trunk, device=begins.device)
    positions = torch.cat([places.expand(len(begins), -1), begins + 1 + word], dim=1)
    causal = (places <= places[:, None]).expand(len(begins), -1, -1)  # [B, S, S]
    history = places <= begins[..., None]  # [B, W, S]
    own = (answer[:, :, None] == answer[:, None]) & (word[:, None] <= word[:, :, None])  # [B, W, W]
    above = F.pad(causal, (0, word.shape[1]))
    return positions, torch.cat([above, torch.cat([history, own], dim=2)], dim=1)


def _parts(texts: Tensor, beginnings: int) -> list[list[_Level]]:
    """Different texts [n, A] in rising order, cut into tries of so many beginnings each, about; text i gets the number
    i + 1."""
    same = (texts[1:] == texts[:-1]) & (texts[1:] >= 0)
    new = (texts[1:] >= 0).sum(1) - same.long().cumprod(1).sum(1)  # beginnings that the text before has not
    new = F.pad(new, (1, 0), value=int((texts[0] >= 0).sum())).cumsum(0) // beginnings
    sizes = new.unique_consecutive(return_counts=True)[1].tolist()
    starts = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    return [_levels(part, start + 1) for part, start in zip(texts.split(sizes), starts)]


def _beginnings(levels: list[_Level]) -> int:
    """Different beginnings of the texts of a trie, with the empty one."""
    return 1 + sum(len(level.on) for level in levels)


def _levels(texts: Tensor, first: int) -> list[_Level]:
    """The trie of different texts [n, A], -1 behind their ends; they are numbered from ``first`` on."""
    device, width = texts.device, int(texts.max()) + 1
    levels, node, alive = (
        [],
        torch.zeros(len(texts), dtype=torch.long, device=device),
        torch.arange(len(texts), device=device),
    )
    ends = F.pad(texts[:, 1:] < 0, (0, 1), value=True)  # [n, A]
    for depth in range(texts.shape[1]):
        # In order of (node, word) the children of a node stand together, and their places number this level.
        edges, child = (node[alive] * width + texts[alive, depth]).unique(
            return_inverse=True
        )  # [W], of every text alive
        stops = ends[alive, depth]
        on = torch.ones(len(edges), dtype=torch.bool, device=device)
        on[child[stops]] = False
        levels.append(
            _Level(edges // width, edges % width, on.nonzero().squeeze(1), child[stops], alive[stops] + first)
        )
        if stops.all():
            break
        node[alive] = (on.cumsum(0) - 1)[child]
        alive = alive[~stops]
    return levels
