"""Histories whose words do not fit into the prompt."""

import pytest
import torch

from recbole_contrec.errors import UserError

WORDS = "--vocabulary_size=300"


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
