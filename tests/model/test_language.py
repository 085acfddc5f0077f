"""What a model reads and says in words: from texts to scores."""

import pytest
import torch

from recbole_contrec.data.text import filled
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.answering import drawn_positions
from recbole_contrec.model.parts.language import Categories

WORDS = "--vocabulary_size=300"
TEXTS = {"movie_title": ["", "Toy Story", "GoldenEye", ""], "class": ["", "Animation Comedy", "", ""]}
FOUND = {"title": None, "category": None}


def test_templates_find_title_and_category_by_the_names_of_their_fields():
    texts = filled("{title} ({category})", {"movie_title": ["", "Toy Story"], "genre": ["", "Comedy"]}, FOUND)
    assert texts == ["", "Toy Story (Comedy)"]
    assert filled("{class}!", TEXTS, FOUND) == ["", "Animation Comedy!", "", ""]  # nothing to say of an item without
    assert filled("{title}", TEXTS, {**FOUND, "title": "class"}) == TEXTS["class"]


@pytest.mark.parametrize(
    "template, named, message",
    [
        ("{titel}", FOUND, "did you mean title"),
        ("film", FOUND, "names no part"),
        ("{title", FOUND, "is no template"),
        ("{title}", {**FOUND, "title": "clas"}, "title_field=clas.*did you mean class"),
    ],
)
def test_a_template_that_the_texts_cannot_fill_is_refused(template, named, message):
    with pytest.raises(UserError, match=message):
        filled(template, TEXTS, named)


def test_without_a_field_that_looks_like_it_the_user_is_asked_for_one():
    with pytest.raises(UserError, match="--category_field=NAME; there are plot"):
        filled("{category}", {"plot": ["", "a"]}, FOUND)


def test_an_answer_names_the_longest_category_in_it():
    categories = Categories(["", "Comedy", "Action, Comedy", "", "sci-fi", "COMEDY"])
    assert categories.category_of.tolist() == [0, 2, 1, 0, 3, 2]
    said = ["I like action comedy: Rush Hour", "comedy!", "sci fi", "sci", "", "actioncomedy"]
    assert categories.named(said).tolist() == [1, 2, 3, 0, 0, 0]


def test_positions_are_drawn_among_targets_without_repeats():
    torch.manual_seed(0)
    next_items = torch.tensor([[4, 0, 6, 7, 0, 9], [0, 3, 0, 0, 0, 0]])
    seen = set()
    for _ in range(50):
        drawn = drawn_positions(next_items, 3)
        first, second = drawn.tolist()
        assert len(set(first)) == 3 and set(first) <= {0, 2, 3, 5} and second[0] == 1 and len(set(second)) == 3
        seen.update(first)
    assert seen == {0, 2, 3, 5}
    assert drawn_positions(next_items, 10).shape == (2, 6)


def test_the_language_loss_is_that_of_the_drawn_answers_and_teaches_words_and_history(staged):
    loaded = staged("ContRec", "--answer_weight=0.5", WORDS, "--dropout=0", "--answers_per_window=100")
    model, batch = loaded.model.train(), next(iter(loaded.data.train))
    terms = model.calculate_loss(batch)
    terms.language.backward()
    assert model.backbone.words.weight.grad.abs().sum() > 0 and model.item_vectors.weight.grad.abs().sum() > 0
    assert model.language.answers.begin.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.head.parameters())


def test_a_model_learns_to_answer(staged):
    """Everybody walks through the catalogue: odd and even follow from the item before."""
    loaded = staged(
        "ContRec", "--answer_weight=1", WORDS, "--dropout=0", "--learning_rate=1e-2", "--answer_template={genre}"
    )
    model, optimiser = loaded.model.train(), torch.optim.Adam(loaded.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        for batch in loaded.data.train:
            loss = model.calculate_loss(batch).language
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    said = model.eval().answers(next(iter(loaded.data.test))[0])
    assert set(said) <= {"odd kind", "even kind"}


def test_a_bag_is_the_mean_of_the_words_and_zero_without(staged):
    model = staged("ContRec", "--prompt_text=bag", WORDS).model.eval()
    language, items = model.language, torch.tensor([[1, 0, 5]])
    bag = language.bag(model.backbone, items)
    for place, item in enumerate(items[0].tolist()):
        numbers = language.numbers[item, : language.lengths[item]]
        wanted = model.backbone.words.weight[numbers].mean(0) if len(numbers) else torch.zeros(16)
        torch.testing.assert_close(bag[0, place], wanted)
    assert language.lengths[0] == 0 < language.lengths[1]


def test_likelihood_and_bonus_enter_the_scores(staged):
    arguments = ("--answer_weight=0.1", WORDS)
    loaded = staged("ContRec", *arguments, "--text_weight=0.3", "--text_bonus=0.2")
    model, batch = loaded.model.eval(), next(iter(loaded.data.test))[0]
    scores = model.full_sort_predict(batch)
    evidence = model.text_evidence(model.encode_histories(batch))
    assert evidence.log_probs.shape[1] == 3  # odd, even, none
    plain = model.retrieval.scores(model.generate_preferences(batch), model.item_vectors.weight)
    agrees = (evidence.category_of == evidence.answered[:, None]) & (evidence.answered[:, None] > 0)
    wanted = plain + 0.2 * plain.abs() * agrees + 0.3 * evidence.log_probs[:, evidence.text_of]
    wanted += (
        model.retrieval.scores(model.generate_preferences(batch), model.item_vectors.weight, batch["item_id_list"])
        - plain
    )
    torch.testing.assert_close(scores, wanted)
    torch.testing.assert_close(model.predict(batch), scores.gather(1, batch["item_id"][:, None])[:, 0])
    best, items = model.top_k(batch, 5)
    torch.testing.assert_close(best, scores[:, 1:].topk(5).values)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--quantisation=4bit", "--lora_rank=4"),
            "lora_rank, quantisation: for a pretrained|quantisation, lora_rank: for",
        ),
        (("--train_llm=False",), "train_llm: for a pretrained language model only"),
        (("--held_out_instruction=what now",), "held_out_instruction needs instructions"),
        (("--item_template={nonsense}",), "item_template: the prompt says nothing of the items, set prompt_text"),
        (("--answer_max_tokens=4",), "answer_max_tokens: nothing is answered, set answer_weight"),
        (("--prompt_text=bag", "--category_field=gnre"), "category_field=gnre: no such text field.*did you mean"),
        (("--prompt_text=bag", "--item_template={title:>{width}}"), "without : and !"),
    ],
)
def test_settings_that_nothing_reads_are_refused(assembled, arguments, message):
    with pytest.raises(UserError, match=message):
        assembled("ContRec", *arguments)


def test_an_instruction_is_drawn_in_training_and_held_out_in_eval_mode(staged):
    model = staged(
        "ContRec", WORDS, "--instructions=['what comes next', 'the next film is']", "--held_out_instruction=and then"
    ).model
    instructions, read = model.prompt.instructions, model.backbone.read
    assert instructions.length == instructions.real.sum(1).max()
    torch.manual_seed(0)
    rows = {tuple(row.flatten().tolist()) for row in instructions.train()(50)}
    assert len(rows) == 2
    held_out = instructions.eval()(3)
    words = model.language.vocabulary.encode(["and then"], 99)
    torch.testing.assert_close(held_out[1, -words.numbers.shape[1] :], read(words.numbers[0]))
    assert tuple(held_out[0].flatten().tolist()) not in rows
    layout = model.eval().history.layout(torch.tensor([[3, 4]]), torch.tensor([1]))
    torch.testing.assert_close(layout.vectors[0, 1 : 1 + instructions.length], held_out[0])  # behind the learned vector


def test_a_list_shows_what_the_model_says(staged):
    from recbole_contrec.recommendation import recommend

    loaded = staged("ContRec", "--answer_weight=0.1", WORDS)
    loaded.model.eval()
    table = recommend(loaded, users=["u1", "u2"], histories=[["i3", "i4"]], k=3)
    assert table.groupby("user_id", sort=False).answer.nunique().tolist() == [1, 1, 1]
    rows = {user: part.answer.iloc[0] for user, part in table.groupby("user_id")}
    assert set(rows) == {"u1", "u2", "new-1"} and all(isinstance(answer, str) for answer in rows.values())
    loaded.model.answers = lambda interaction, encoding: [
        f"says {number}" for number in interaction["user_id"].tolist()
    ]
    table, numbers = recommend(loaded, users=["u2", "u1"], k=2), loaded.data.dataset.field2token_id["user_id"]
    assert table.answer.tolist() == [f"says {numbers[user]}" for user in ("u2", "u2", "u1", "u1")]
    loaded.model.answering = None
    assert "answer" not in recommend(loaded, users=["u1"], k=3)
