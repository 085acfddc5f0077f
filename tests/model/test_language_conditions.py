"""No word about a target reaches the condition that it is predicted from; a model's own answer may."""

import pytest
import torch

from tests.helpers.files import STORIES

WORDS = "--vocabulary_size=300"


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
