"""Instructions share their words; the one held out is new as a sentence only."""

from unicodedata import normalize

import pytest
import torch

from recbole_contrec.backbone import Instructions, Prompt, Vocabulary, VocabularyInstructions

TRAINED = ["Suggest the next item", "what comes next", "the user likes what?"]


@pytest.fixture
def instructions():
    torch.manual_seed(0)
    return Instructions(TRAINED, "what item next", 8)


def sentence(instructions, *words):
    vocabulary = sorted({word for text in TRAINED for word in text.lower().strip("?").split()})
    return instructions.vectors.weight[[1 + vocabulary.index(word) if word else 0 for word in words]]


def test_every_row_draws_an_instruction_in_training(instructions):
    drawn = instructions.train()(300)
    assert drawn.shape == (300, 4, 8) and instructions.length == 4
    known = torch.stack(
        [
            sentence(instructions, "suggest", "the", "next", "item"),
            sentence(instructions, "", "what", "comes", "next"),  # a blank in front of a shorter one
            sentence(instructions, "the", "user", "likes", "what"),
        ]
    )
    which = (drawn[:, None] == known).all((2, 3))
    assert (which.sum(1) == 1).all() and (which.sum(0) > 50).all()


def test_eval_mode_reads_the_held_out_instruction(instructions):
    read = instructions.eval()(5)
    torch.testing.assert_close(read, sentence(instructions, "", "what", "item", "next").expand(5, -1, -1))
    first = Instructions(TRAINED, None, 8).eval()
    torch.testing.assert_close(first(1)[0], sentence(first, "suggest", "the", "next", "item"))


def test_the_held_out_instruction_learns_from_the_others(instructions):
    instructions.train()(50).square().sum().backward()
    gradient = instructions.vectors.weight.grad[instructions.numbers[-1]]
    assert (gradient.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    "trained, held_out, message",
    [
        (TRAINED, "what comes after", "has the words after"),
        (TRAINED, "?", "must have words"),
        (TRAINED, "What comes next!", "not those of a training instruction"),
        ([], None, "at least one sentence"),
        (["!"], None, "at least one word"),
    ],
)
def test_instructions_that_make_no_sense(trained, held_out, message):
    with pytest.raises(ValueError, match=message):
        Instructions(trained, held_out, 8)


def test_instructions_stand_in_front_of_the_user(instructions):
    prompt = Prompt(8, 2, 3, 2, "one", max_items=5, instructions=instructions).eval()
    users, items = torch.randn(2, 3, 8), torch.randn(2, 5, 2, 8)
    layout = prompt(users, items)
    laid_out = layout.vectors
    assert laid_out.shape == (2, prompt.max_positions, 8) == (2, 2 + 4 + 3 + 5, 8)
    torch.testing.assert_close(laid_out[:, 2:6], instructions(2))
    torch.testing.assert_close(laid_out[:, 6:9], users)
    torch.testing.assert_close(layout.after_items(laid_out), items.sum(2))
    assert layout.last(torch.tensor([1, 3])).tolist() == [9, 11]


@pytest.mark.parametrize("sentence", ["推荐下一部电影", "порекомендуй следующий фильм", "🎬 next?", "株式会社 ㍿ ﷺ"])
def test_no_script_is_cut(sentence):
    vocabulary = Vocabulary.trained(["nothing of that kind"], 300)
    instructions = VocabularyInstructions([sentence], None, vocabulary, torch.nn.Embedding(300, 4), 4)
    assert vocabulary.decode(instructions.numbers[-1:]) == [normalize("NFKC", sentence)]


def test_marks_of_a_language_model_are_read_as_such():
    vocabulary = Vocabulary.trained(["what comes next"], 300)
    instructions = VocabularyInstructions(["what</s>next"], None, vocabulary, torch.nn.Embedding(300, 4), 4)
    assert (instructions.numbers[-1] == vocabulary.end).sum() == 1
