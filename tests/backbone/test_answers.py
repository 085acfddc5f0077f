"""Answers are branches: they see the history up to where they begin, and nothing of the history sees them."""

import pytest
import torch

from recbole_contrec.backbone import Answers, CausalDecoder, Encoded, Vocabulary

TEXTS = ["", "a b", "a b c", "d", "a b", "", "d e f g h a"]  # by item; the padding first


@pytest.fixture
def vocabulary():
    return Vocabulary.trained(TEXTS, 300)


@pytest.fixture
def decoder(vocabulary):
    torch.manual_seed(0)
    return CausalDecoder(
        16, n_layers=2, n_heads=2, max_positions=30, dropout=0.5, n_words=len(vocabulary), says=True
    ).eval()


@pytest.fixture
def answers(vocabulary):
    return Answers(vocabulary.encode(TEXTS, 8, ended=True), 16)


@pytest.fixture
def prompt():
    torch.manual_seed(1)
    return torch.randn(3, 7, 16)


def alone(decoder, answers, prompt, last, numbers):
    """Log-probability of the words of one answer [A] behind position ``last`` of one prompt [S, D], word by word."""
    inputs = torch.cat([prompt[: last + 1], answers.begin[None], decoder.read(numbers[:-1])])[None]
    log_probs = decoder.word_logits(decoder(inputs)[0, last + 1 :]).log_softmax(-1)
    return log_probs.gather(1, numbers[:, None]).squeeze(1)


def log_probs(decoder, answers, prompt, last):
    """Of all texts, behind position ``last`` [B]."""
    _, memory = decoder.start(prompt, last[:, None], answers.room_for_texts)
    return answers.log_probs(decoder, memory, torch.zeros_like(last))


def generate(decoder, answers, prompt, begins, end, **how):
    """Answers behind positions [B, Q]."""
    _, memory = decoder.start(prompt, begins, begins.shape[1] * answers.room(how.get("beams", 1)))
    return answers.generate(decoder, memory, torch.arange(begins.shape[1]).expand_as(begins), end, **how)


def states_behind(decoder, answers, prompt, words):
    """States [A + 1, D] behind the begin of an answer and behind each of its words [A], for one prompt [S, D]."""
    inputs = torch.cat([prompt, answers.begin[None], decoder.read(torch.tensor(words, dtype=torch.long))])
    return decoder(inputs[None])[0, len(prompt) :]


def searched(decoder, answers, prompt, end, beams):
    """A beam search word by word and beam by beam: the words of the best answer, and their mean state."""
    found = [(0.0, [])]
    for _ in range(answers.longest):
        ahead = []
        for score, words in found:
            if end in words:
                ahead.append((score, words))
                continue
            log_probs = decoder.word_logits(states_behind(decoder, answers, prompt, words)[-1]).log_softmax(-1)
            ahead += [(score + float(log_prob), [*words, word]) for word, log_prob in enumerate(log_probs)]
        found = sorted(ahead, key=lambda one: -one[0])[:beams]
    words = found[0][1]
    return words, states_behind(decoder, answers, prompt, words[:-1]).mean(0)


@torch.no_grad()
def test_branches_in_one_pass_are_answers_read_alone(decoder, answers, prompt):
    begins, items = torch.tensor([[6, 2], [0, 0], [3, 5]]), torch.tensor([[1, 6], [2, 3], [4, 0]])
    branches = answers.read_along(decoder, prompt, begins, items)
    torch.testing.assert_close(branches.states, decoder(prompt))
    total, count = 0.0, 0
    for row in range(3):
        for place, item in enumerate(items[row].tolist()):
            words = answers.numbers[item, : answers.lengths[item]]
            assert branches.real[row, place].sum() == len(words)
            if len(words):
                wanted = alone(decoder, answers, prompt[row], begins[row, place], words)
                said = decoder.word_logits(branches.answer_states[row, place, : len(words)]).log_softmax(-1)
                torch.testing.assert_close(said.gather(1, words[:, None]).squeeze(1), wanted)
                total, count = total - wanted.sum(), count + len(words)
    torch.testing.assert_close(branches.loss(decoder), total / count)


@torch.no_grad()
def test_no_state_of_the_history_sees_an_answer_and_no_answer_another(decoder, answers, prompt):
    begins = torch.tensor([[2, 4]]).expand(3, -1)
    one = answers.read_along(decoder, prompt, begins, torch.tensor([[2, 6]]).expand(3, -1))
    other = answers.read_along(decoder, prompt, begins, torch.tensor([[2, 1]]).expand(3, -1))
    torch.testing.assert_close(one.states, other.states)
    torch.testing.assert_close(one.answer_states[:, 0], other.answer_states[:, 0])
    assert not torch.allclose(one.answer_states[:, 1], other.answer_states[:, 1])


@torch.no_grad()
def test_log_probs_of_all_texts_are_those_of_each(decoder, answers, prompt):
    last = torch.tensor([6, 3, 0])
    found = log_probs(decoder, answers, prompt, last)
    assert found.shape == (3, 5) and answers.text_of.tolist()[1] == answers.text_of.tolist()[4]
    for item in (1, 2, 3, 4, 6):
        words = answers.numbers[item, : answers.lengths[item]]
        wanted = torch.stack([alone(decoder, answers, prompt[row], last[row], words).sum() for row in range(3)])
        torch.testing.assert_close(found[:, answers.text_of[item]], wanted)


@torch.no_grad()
def test_no_text_is_worth_what_a_drawn_one_is_on_average(decoder, answers, prompt):
    found = log_probs(decoder, answers, prompt, torch.tensor([6, 3, 0]))
    assert answers.text_of[[0, 5]].tolist() == [0, 0]
    torch.testing.assert_close(found[:, 0], (found[:, 1:].softmax(1) * found[:, 1:]).sum(1))


@torch.no_grad()
@pytest.mark.parametrize("beginnings", [1, 4, 7])
def test_texts_read_in_parts_are_worth_the_same(decoder, answers, prompt, monkeypatch, beginnings):
    last = torch.tensor([6, 3, 0])
    whole, room = log_probs(decoder, answers, prompt, last), answers.room_for_texts
    assert answers.beginnings == room
    monkeypatch.setattr(Answers, "PART", beginnings)
    answers.forget()
    torch.testing.assert_close(log_probs(decoder, answers, prompt, last), whole)
    assert answers.room_for_texts < room < answers.beginnings and answers.text_of.tolist() == [0, 1, 2, 3, 1, 0, 4]


@torch.no_grad()
def test_few_rows_at_once_change_nothing(decoder, answers, prompt, monkeypatch):
    last = torch.tensor([6, 3, 0])
    whole = log_probs(decoder, answers, prompt, last)
    monkeypatch.setattr(Answers, "MEMORY", 1)
    torch.testing.assert_close(log_probs(decoder, answers, prompt, last), whole)


@torch.no_grad()
def test_generation_takes_the_likeliest_word_until_the_end_mark(decoder, answers, prompt):
    begins = torch.tensor([[6, 2], [3, 0], [0, 5]])
    endless = generate(decoder, answers, prompt, begins, end=-1).answers
    assert (endless.lengths == answers.longest).all()
    end = int(next(row[2] for row in endless.numbers.flatten(0, 1) if row[2] not in row[:2]))  # ends one answer early
    said = generate(decoder, answers, prompt, begins, end)
    assert said.answers.numbers.shape == (3, 2, answers.longest) and said.answers.lengths.min() < answers.longest
    for row in range(3):
        for place, begin in enumerate(begins[row].tolist()):
            words: list[int] = []
            states = []
            while len(words) < answers.longest and end not in words:
                own = decoder.read(torch.tensor(words, dtype=torch.long))
                states.append(decoder(torch.cat([prompt[row, : begin + 1], answers.begin[None], own])[None])[0, -1])
                words.append(int(decoder.word_logits(states[-1]).argmax()))
            assert said.answers.lengths[row, place] == len(words)
            assert said.answers.numbers[row, place].tolist() == words + [end] * (answers.longest - len(words))
            torch.testing.assert_close(said.states[row, place], torch.stack(states).mean(0), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [2, 3])
def test_beams_find_what_a_search_one_by_one_finds(decoder, answers, prompt, beams):
    begins = torch.tensor([[6, 2], [3, 0], [0, 5]])
    decoder.word_output.weight.data.mul_(9)  # away from equal chances
    greedy = generate(decoder, answers, prompt, begins, end=-1).answers.numbers
    second = decoder.word_logits(states_behind(decoder, answers, prompt[0], [])[0]).topk(2).indices[1]
    # so that some beams end before others, and some that are ahead in the end lie behind when they end
    ends, other = {int(end) for end in (greedy[0, 0, 3], greedy[0, 0, 1], second)}, 0
    for end in ends:
        other += differing(decoder, answers, prompt, begins, end, beams, greedy)
    assert other, "a search of width 1 would have found the same"


def differing(decoder, answers, prompt, begins, end, beams, greedy):
    """How many answers are others than the greedy ones; all are compared with a search one by one."""
    said, other = generate(decoder, answers, prompt, begins, end, beams=beams), 0
    for row in range(3):
        for place, begin in enumerate(begins[row].tolist()):
            words, state = searched(decoder, answers, prompt[row, : begin + 1], end, beams)
            assert said.answers.numbers[row, place].tolist() == words + [end] * (answers.longest - len(words))
            assert said.answers.lengths[row, place] == len(words)
            torch.testing.assert_close(said.states[row, place], state, atol=1e-5, rtol=1e-4)
            other += words != greedy[row, place, : len(words)].tolist()
    assert said.answers.lengths.min() < answers.longest
    return other


@torch.no_grad()
def test_drawn_words_follow_their_probabilities(decoder, answers, prompt):
    begins = torch.full((1, 20_000), 6)
    decoder.word_output.weight.data.mul_(9)  # away from equal chances
    first = decoder.word_logits(states_behind(decoder, answers, prompt[0], [])[0])
    answers.numbers = answers.numbers[:, :1]  # one word is enough here
    for temperature in (1.0, 0.5):
        torch.manual_seed(0)
        said = generate(decoder, answers, prompt[:1], begins, end=-1, temperature=temperature).answers.numbers[0, :, 0]
        shares = torch.bincount(said, minlength=len(first)) / len(said)
        torch.testing.assert_close(shares, (first / temperature).softmax(-1), atol=0.01, rtol=0)


@torch.no_grad()
def test_with_a_generator_no_drawn_answer_depends_on_what_else_is_asked(decoder, answers, prompt):
    def drawn(rows, seed=5):
        generator = torch.Generator().manual_seed(seed)
        return generate(
            decoder, answers, prompt[rows], torch.full((len(rows), 1), 6), end=-1, temperature=2.0, generator=generator
        ).answers.numbers

    together = drawn([0, 1, 2])
    assert torch.equal(torch.cat([drawn([row]) for row in range(3)]), together)
    assert not torch.equal(drawn([0, 1, 2], seed=6), together)
    nearly_cold = generate(decoder, answers, prompt, torch.full((3, 1), 6), end=-1, temperature=1e-6).answers.numbers
    assert torch.equal(nearly_cold, generate(decoder, answers, prompt, torch.full((3, 1), 6), end=-1).answers.numbers)


def test_nothing_is_learned_without_texts(decoder, answers, prompt):
    branches = answers.read_along(decoder, prompt, torch.zeros(3, 1, dtype=torch.long), torch.tensor([[0], [5], [0]]))
    assert branches.loss(decoder) == 0


def test_more_items_have_no_text_yet(decoder, answers, prompt):
    before = log_probs(decoder, answers, prompt, torch.tensor([6, 3, 0]))
    answers.add_items(2)
    assert answers.text_of.tolist() == [0, 1, 2, 3, 1, 0, 4, 0, 0]
    torch.testing.assert_close(log_probs(decoder, answers, prompt, torch.tensor([6, 3, 0])), before)


def test_loaded_answers_replace_what_was_derived_from_others(vocabulary, answers):
    assert answers.text_of[6] == 4
    other = Answers(Encoded(answers.numbers.clone(), answers.lengths.clone()), 16)
    other.numbers[6], other.lengths[6] = other.numbers[1], other.lengths[1]
    answers.load_state_dict(other.state_dict())
    assert answers.text_of.tolist() == [0, 1, 2, 3, 1, 0, 1]


def test_without_any_text_there_are_no_answers(vocabulary):
    with pytest.raises(ValueError, match="no item has a text"):
        Answers(vocabulary.encode(["", ""], 8, ended=True), 16)


# the vocabulary


@pytest.mark.parametrize("text", ["toy story (1995)", "שלום עולם", "🎬 emoji 👩‍👩‍👧", "ｆｕｌｌ ｗｉｄｔｈ", ""])
def test_any_text_comes_back_in_lower_case(vocabulary, text):
    import unicodedata

    words = vocabulary.encode([text, "a b"], 1000, ended=True)
    assert vocabulary.decode(words.numbers)[0] == unicodedata.normalize("NFKC", text).lower()
    assert words.numbers[0, words.lengths[0] - 1] == vocabulary.end


def test_texts_are_cut_by_words_and_keep_their_end_mark(vocabulary):
    words = vocabulary.encode(["a" * 100_000, "", "d"], 5, ended=True)
    assert words.numbers.shape == (3, 5) and words.lengths.tolist() == [5, 1, 2]
    assert words.numbers[0, 4] == vocabulary.end and vocabulary.end not in words.numbers[0, :4]
    assert vocabulary.encode(["a" * 100_000], 5).lengths.tolist() == [5]


def test_a_vocabulary_is_the_same_each_time_and_after_storing(vocabulary):
    again = Vocabulary.trained(TEXTS, 300)
    assert again.to_json() == vocabulary.to_json() and len(again) <= 300
    stored = Vocabulary.from_json(vocabulary.to_json(), vocabulary.end)
    assert torch.equal(stored.encode(TEXTS, 8).numbers, vocabulary.encode(TEXTS, 8).numbers)


def test_a_vocabulary_holds_all_bytes(vocabulary):
    with pytest.raises(ValueError, match="at least 300"):
        Vocabulary.trained(TEXTS, 299)


# in training


def test_no_word_of_an_answer_is_dropped(decoder, answers, prompt):
    """Dropout on the history alone: with equal dropout there, words differ by nothing that is drawn for them."""
    decoder.train()
    begins, items = torch.tensor([[6, 2], [0, 0], [3, 5]]), torch.tensor([[1, 6], [2, 3], [4, 6]])

    def read(others):
        torch.manual_seed(0)
        return answers.read_along(decoder, prompt, begins[:, :others], items[:, :others])

    both, one = read(2), read(1)
    torch.testing.assert_close(both.states, one.states)
    torch.testing.assert_close(both.answer_states[:, :1], one.answer_states)
    torch.manual_seed(1)
    other = answers.read_along(decoder, prompt, begins, items)
    assert not torch.allclose(other.states, both.states), "the history is dropped from"

    decoder.dropout.everywhere.p = 0.999  # nothing is left of the history
    blind = [answers.read_along(decoder, prompt, begins, items).answer_states for _ in range(2)]
    torch.testing.assert_close(*blind, atol=0.1, rtol=0.1)
    decoder.dropout.everywhere.p = 0.5
    torch.testing.assert_close(decoder.dropout(torch.ones(1, 999, 16)).mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    assert (decoder.dropout(torch.ones(1, 999, 16)) == 0).any(2).all(), "a plain prompt is dropped from as ever"
