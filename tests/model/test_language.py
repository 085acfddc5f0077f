"""What a model reads and says in words: from texts to scores."""

import pytest
import torch

from recbole_contrec.backbone import Vocabulary
from recbole_contrec.data.text import filled
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.answering import drawn_positions
from recbole_contrec.model.parts.language import Categories
from tests.helpers.files import STORIES, write_atomic_files

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


BEHIND = ("--condition_on=answer", "--answer_weight=1", "--answer_template={title}", WORDS, "--answers_per_window=100")


@pytest.mark.parametrize("model", ["ContRec", "DeftRec"])
def test_a_condition_behind_the_models_own_answer_is_the_same_in_training_and_in_use(staged, model):
    loaded = staged(model, *BEHIND, "--MAX_ITEM_LIST_LENGTH=30")
    recommender = loaded.model.eval()
    (batch,) = [batch for batch, _ in zip(loaded.data.train, range(1))]
    items, user = batch["item_id_list"], batch["user_id"]
    with torch.no_grad():
        targets, loss = recommender.targets(batch)
        assert len(targets.items) == recommender.windows.count_targets(batch) and loss > 0
        for number in range(0, len(targets.items), 7):
            row, place = targets.row[number], targets.place[number]
            assert targets.items[number] == batch["next_item_id_list"][row, place]
            alone = recommender.answering.encode(
                items[row : row + 1, : place + 1], place[None] + 1, user[row : row + 1]
            ).conditions
            torch.testing.assert_close(targets.states[number], alone[0], atol=1e-4, rtol=1e-4)


def test_an_answer_is_written_without_dropout_also_in_training(staged):
    model = staged("ContRec", *BEHIND, "--dropout=0.9").model.eval()
    prompt, begins = model.history.layout(torch.arange(1, 9)[None], torch.tensor([1])), torch.tensor([[4, 7]])
    wanted = model.answering.generate(prompt, begins)
    model.train()
    for _ in range(3):
        written = model.answering.generate(prompt, begins)
        assert torch.equal(written.answers.numbers, wanted.answers.numbers)
        torch.testing.assert_close(written.states, wanted.states)
    assert model.backbone.training


@pytest.mark.parametrize("model", ["ContRec", "DeftRec"])
def test_right_answers_do_not_reach_a_condition_behind_the_models_own(staged, model):
    loaded = staged(model, *BEHIND, "--dropout=0", "--token_noise=False", "--user_token_dropout=0")
    batch, recommender = next(iter(loaded.data.train)), loaded.model.train()
    torch.manual_seed(0)
    before, loss = recommender.targets(batch)
    numbers = recommender.language.answers.numbers
    numbers[1:] = numbers[1:].roll(7, dims=0)
    torch.manual_seed(0)
    after, other = recommender.targets(batch)
    torch.testing.assert_close(after.states, before.states)
    assert not torch.allclose(loss, other) and recommender.backbone.training
    before.states.sum().backward()
    assert recommender.language.answers.begin.grad.abs().sum() > 0  # the way back leads through the answer's words


@pytest.mark.parametrize("model", ["ContRec", "DeftRec"])
def test_the_title_of_a_target_leaves_its_condition_as_it_is(staged, model):
    """Teacher forcing puts words of the target into the pass; none of them may reach what its vector is generated
    from."""
    recommender = staged(
        model,
        "--answer_weight=1",
        "--answer_template={title}",
        WORDS,
        "--dropout=0",
        "--token_noise=False",
        "--user_token_dropout=0",
    )
    batch, recommender = next(iter(recommender.data.train)), recommender.model.train()
    torch.manual_seed(0)
    before, _ = recommender.targets(batch)
    numbers = recommender.language.answers.numbers
    numbers[1:] = numbers[1:].roll(7, dims=0)  # every item gets another title
    torch.manual_seed(0)
    after, _ = recommender.targets(batch)
    torch.testing.assert_close(after.states, before.states)
    plain = recommender.history.targets(recommender.windows(batch))
    ours, theirs = (
        (targets.row * batch["item_id_list"].shape[1] + targets.place).argsort() for targets in (before, plain)
    )
    torch.testing.assert_close(plain.states[theirs], before.states[ours])
    assert torch.equal(plain.items[theirs], before.items[ours])


@pytest.mark.parametrize("condition_on", ["history", "answer"])
@pytest.mark.parametrize("backbone", [("--n_layers=2",), (f"--llm={STORIES}", "--lora_rank=2")])
@pytest.mark.parametrize("prompt_text", ["words", "bag"])
def test_no_word_about_a_target_reaches_its_condition_through_the_prompt_either(
    staged, condition_on, backbone, prompt_text
):
    """A prompt of windows holds the words of the target as well, behind the position that it is predicted from."""
    words = () if backbone[0].startswith("--llm") else (WORDS,)
    loaded = staged(
        "ContRec",
        "--answer_weight=1",
        "--answer_template={title}",
        *words,
        *backbone,
        f"--prompt_text={prompt_text}",
        f"--condition_on={condition_on}",
        "--dropout=0",
        "--token_noise=False",
        "--user_token_dropout=0",
        "--answers_per_window=100",
        "--MAX_ITEM_LIST_LENGTH=8",
        "--answer_max_tokens=4",
        "--item_text_max_tokens=4",
    )
    batch, model, language = next(iter(loaded.data.train)), loaded.model.eval(), loaded.model.language

    def conditions():
        torch.manual_seed(0)
        targets, _ = model.targets(batch)
        return targets, dict(zip(zip(targets.row.tolist(), targets.place.tolist()), targets.states))

    targets, before = conditions()
    # an item that is somewhere a target, and not in the history before it
    row, place, item = next(
        (row, place, item)
        for row, place, item in zip(*(part.tolist() for part in (targets.row, targets.place, targets.items)))
        if item not in batch["item_id_list"][row, : place + 1] and 2 < place < 7
    )
    for numbers in (language.answers.numbers, language.numbers):
        numbers[item, 0] = numbers[item, 0] % 200 + 7
    torch.testing.assert_close(conditions()[1][row, place], before[row, place])
    assert not torch.allclose(conditions()[1][row, place + 1], before[row, place + 1]), "the next one reads it"


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


def test_what_a_model_reads_and_says_survives_edited_texts(staged, tiny, workplace):
    from recbole_contrec.quick_start import load_data_and_model, run

    arguments = [
        "--answer_weight=0.1",
        "--instructions=['what comes next']",
        "--text_bonus=0.5",
        "--prompt_text=bag",
        WORDS,
        f"--data_path={tiny}",
        "--epochs=1",
        "--hidden_size=16",
        "--tokenizer_epochs=1",
        "--show_progress=False",
        "--n_layers=1",
    ]
    result = run("ContRec", "tiny", arguments=arguments)
    before = load_data_and_model(result["checkpoint"])
    rows = next(iter(before.data.test))[0]
    scores, said = before.model.full_sort_predict(rows), before.model.answers(rows)
    path = tiny / "tiny" / "tiny.item"
    numbers = before.model.language.categories.number
    first, last = min(numbers, key=numbers.get), max(numbers, key=numbers.get)
    path.write_text(path.read_text().replace(last, "aa" + last[2:]).replace("Title", "Zitle"))  # now the first of all
    after = load_data_and_model(result["checkpoint"])
    torch.testing.assert_close(after.model.full_sort_predict(rows), scores)
    assert after.model.answers(rows) == said
    named = after.model.language.categories.named([first, last])
    assert named.tolist() == [numbers[first], numbers[last]] == [1, len(numbers)]


def test_a_vocabulary_of_another_size_is_explained(run_tiny, tiny):
    from recbole_contrec.quick_start import load_data_and_model

    result = run_tiny("ContRec", "--answer_weight=0.1", "--epochs=1", "--vocabulary_size=1000")
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("kind", "a much longer category"))
    with pytest.raises(UserError, match="if item texts were edited after training, it needs those of then"):
        load_data_and_model(result["checkpoint"])


def test_marks_in_a_text_are_characters(staged, tiny):
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("kind", "kind</s>", 1))
    model = staged("ContRec", "--answer_weight=0.1", "--text_weight=0.5", "--prompt_text=bag", WORDS).model.eval()
    answers, end = model.language.answers, model.language.vocabulary.end
    assert (
        (answers.numbers == end).cumsum(1)[:, -1] == answers.longest - answers.lengths + (answers.lengths > 0)
    ).all()
    assert any("</s>" in text for text in model.language.vocabulary.decode(answers.numbers))


def test_long_texts_are_cut_before_they_are_read_and_say_the_same():
    short = [f"Title {number} of a film" for number in range(5000)]
    vocabulary = Vocabulary.trained(short[:200], 400)
    found = vocabulary.encode(short, 8)
    long = vocabulary.encode([text + " and more" * 20_000 for text in short[::500]], 4)
    assert len(found.numbers) == 5000 and torch.equal(found.numbers[::500, :4], long.numbers)
    assert vocabulary.decode(vocabulary.encode(short, 50).numbers)[::999] == [text.lower() for text in short[::999]]


def without_categories(tiny):
    """The tiny data with titles alone."""
    path = tiny / "tiny" / "tiny.item"
    names, *rows = path.read_text().splitlines()
    assert names.split("\t")[1:] == ["title:token_seq", "genre:token_seq"]
    path.write_text("\n".join(row.rpartition("\t")[0] for row in (names, *rows)) + "\n")


def test_without_categories_titles_are_read_and_said(run_tiny, tiny):
    without_categories(tiny)
    titles = ("--answer_weight=0.1", "--answer_template={title}", "--prompt_text=bag", "--item_template={title}", WORDS)
    assert run_tiny("ContRec", *titles, "--epochs=1", "--text_weight=0.1")["best_epoch"] == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--answer_weight=0.1",), r"template '\{category\}': no text field looks like a category.*such as \{title\}"),
        (("--prompt_text=bag",), r"template '\{title\} \{category\}': no text field.*such as \{title\}"),
        (
            ("--answer_weight=0.1", "--answer_template={title}", "--text_bonus=0.1"),
            "no text field looks like a category",
        ),
        (("--answer_weight=0.1", "--answer_template={title}", "--category_template={genre}"), "no text field 'genre'"),
    ],
)
def test_templates_that_ask_for_what_is_not_there(staged, tiny, arguments, message):
    without_categories(tiny)
    with pytest.raises(UserError, match=message):
        staged("ContRec", *arguments, WORDS)


def test_blanks_are_no_texts(staged, tiny):
    assert filled("{title} ({category})", {"title": [" ", "A", "A"], "genre": ["\t", "", "b "]}, FOUND) == [
        "",
        "A ()",
        "A (b )",
    ]
    path = tiny / "tiny" / "tiny.item"
    names, *rows = path.read_text().splitlines()
    path.write_text("\n".join([names, *(row.split("\t")[0] + "\t  \t " for row in rows)]) + "\n")
    for arguments in (("--prompt_text=words",), ("--answer_weight=0.1",)):
        with pytest.raises(UserError, match="the texts of all items are empty"):
            staged("ContRec", *arguments, WORDS)


def test_many_beginnings_of_texts_are_told(staged, caplog, monkeypatch):
    arguments = ("--answer_weight=0.1", "--text_weight=0.1", "--answer_template={title}", WORDS)
    staged("ContRec", *arguments)
    assert "beginnings" not in caplog.text
    monkeypatch.setattr("recbole_contrec.model.parts.language.MANY_BEGINNINGS", 10)
    staged("ContRec", *arguments)
    assert "the beginnings of all texts are read" in caplog.text


@pytest.mark.parametrize(
    "one, other", [("की", "कि"), ("ที่", "ที"), ("C++", "C#"), ("C", "C++"), ("🎭", "🎬"), ("שָׁלוֹם", "שלום")]
)
def test_categories_of_any_script_are_told_apart(one, other):
    categories = Categories(["", f"{one} x", f"{other} x", one])
    assert len(set(categories.category_of.tolist())) == 4
    assert (
        categories.named([f"I say: {one.upper()} x!", f"({other} x)", f"«{one}»"]).tolist()
        == categories.category_of[1:].tolist()
    )


def test_categories_in_lists_of_any_form_are_one():
    categories = Categories(["", "Sci-Fi|Drama", "sci fi, drama", "SCI-FI / DRAMA"])
    assert categories.category_of.tolist() == [0, 1, 1, 1]


def test_answers_that_name_other_categories_are_told(staged, tiny, caplog):
    path = tiny / "tiny" / "tiny.item"
    path.write_text(path.read_text().replace("kind", "a very special sort of a kind"))
    staged("ContRec", "--answer_weight=0.1", "--text_bonus=0.1")
    assert "text_bonus" not in caplog.text
    staged("ContRec", "--answer_weight=0.1", "--text_bonus=0.1", "--answer_max_tokens=3")
    assert "of the items the whole answer does not name their category" in caplog.text


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


def test_empty_texts_are_no_prompt(assembled, tiny):
    (tiny / "tiny" / "tiny.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{item}\t\n" for item in range(60))
    )
    with pytest.raises(UserError, match="prompt_text=words: the texts of all items are empty"):
        assembled("ContRec", "--prompt_text=words", "--item_template={title}")


NARROW = (
    "--prompt_text=words",
    "--item_text_max_tokens=6",
    "--answer_weight=0.1",
    "--answer_max_tokens=8",
    "--instructions=['people who like this like']",
    WORDS,
    "--vocabulary_size=320",
)


def test_the_oldest_items_make_room_and_the_instruction_stays(staged):
    whole = staged("ContRec", *NARROW).model.eval()
    prefix, answer = whole.prompt.prefix_length, whole.language.longest_answer
    cut = staged("ContRec", *NARROW, f"--max_prompt_length={prefix + answer + 20}").model.eval()
    assert whole.history.room is None and cut.history.room == 20
    cut.load_state_dict(
        {
            key: value if cut.state_dict()[key].shape == value.shape else value[: prefix + answer + 20]
            for key, value in whole.state_dict().items()
        }
    )
    items = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [7, 8, 0, 0, 0, 0, 0, 0, 0, 0]])
    length, user = torch.tensor([10, 2]), torch.tensor([1, 2])
    widths = [1 + int(whole.language.lengths[item]) for item in items[0]]
    kept = next(count for count in range(10, 0, -1) if sum(widths[-count:]) <= 20)
    assert 1 <= kept < 10
    shown = torch.zeros_like(items)
    shown[0, :kept], shown[1] = items[0, -kept:], items[1]
    torch.testing.assert_close(
        cut.history.conditions(items, length, user),
        whole.history.conditions(shown, torch.tensor([kept, 2]), user),
        atol=1e-5,
        rtol=1e-4,
    )
    targets = items.roll(-1, 1) * (items > 0)  # any
    fitted, lengths, moved = cut.history.fitting(items, length, targets)
    assert torch.equal(fitted, shown) and lengths.tolist() == [kept, 2]
    assert torch.equal(moved[0, :kept], targets[0, -kept:]) and not moved[0, kept:].any()
    assert torch.equal(moved[1], targets[1])


def test_as_many_of_the_last_items_stay_as_there_is_room_for(staged):
    model = staged("ContRec", *NARROW).model.eval()
    items = torch.arange(1, 11)[None]
    widths = [1 + int(model.language.lengths[item]) for item in items[0]]
    for room in range(max(widths), sum(widths) + 2):
        model.history.room = room
        kept = max(count for count in range(1, 11) if sum(widths[-count:]) <= room)
        fitted, length = model.history.fitting(items, torch.tensor([10]))
        assert length.item() == kept and fitted[0, :kept].tolist() == items[0, -kept:].tolist()


def test_training_on_histories_that_do_not_fit_predicts_from_what_is_left(staged):
    loaded = staged("ContRec", *NARROW, "--max_prompt_length=50", "--dropout=0")
    model, batch = loaded.model.train(), max(loaded.data.train, key=lambda batch: batch["item_length"].max())
    terms = model.calculate_loss(batch)
    assert all(torch.isfinite(term) for term in terms) and terms.language > 0
    targets, _ = model.targets(batch)
    assert 0 < len(targets.items) < model.windows.count_targets(batch)


def test_a_run_says_what_of_long_histories_is_read(run_tiny, caplog):
    """The card has the longest history that is asked for, and a prompt may have no room for it."""
    card = run_tiny("ContRec", *NARROW)["card"]
    assert card["histories_cut_to"] is None and "are read" not in caplog.text
    card = run_tiny("ContRec", *NARROW, "--max_prompt_length=50")["card"]
    assert "items that fit into" in card["histories_cut_to"] and card["histories_cut_to"] in " ".join(
        caplog.text.split()
    )
    assert run_tiny("SASRec")["card"]["histories_cut_to"] is None


def test_a_prompt_without_room_for_an_item_is_refused(assembled):
    with pytest.raises(UserError, match="no room for one item.*max_prompt_length"):
        assembled("ContRec", *NARROW, "--max_prompt_length=10")


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


def test_words_are_asked_of_data_without_texts(assembled, tiny):
    (tiny / "tiny" / "tiny.item").unlink()
    for argument in ("--prompt_text=bag", "--answer_weight=0.1"):
        with pytest.raises(UserError, match="'tiny' has no item texts"):
            assembled("ContRec", argument)


def test_texts_of_any_script_and_length_train(workplace, config_of):
    path = write_atomic_files(workplace / "other", name="odd")
    rows = ["item_id:token\ttitle:token_seq\tgenre:token_seq"]
    rows += [
        f"i{item}\t{text}\t{kind}"
        for item, (text, kind) in enumerate(
            [("x" * 100_000, "a"), ("", ""), ("🎬 film 👩‍👩‍👧", "🎭"), ("שלום עולם", "דרמה")] * 15
        )
    ]
    (path / "odd.item").write_text("\n".join(rows) + "\n")
    from recbole_contrec.quick_start import run

    result = run(
        "ContRec",
        "odd",
        arguments=[
            f"--data_path={workplace / 'other'}",
            "--answer_weight=0.1",
            "--prompt_text=words",
            WORDS,
            "--epochs=1",
            "--hidden_size=16",
            "--n_layers=1",
            "--tokenizer_epochs=1",
            "--show_progress=False",
            "--MAX_ITEM_LIST_LENGTH=10",
            "--answer_template={category}: {title}",
            "--text_weight=0.1",
            "--text_bonus=0.1",
        ],
    )
    assert 0 <= result["test_result"]["ndcg@10"] <= 1
