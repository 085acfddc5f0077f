"""DeftRec: the contrast with negatives against plain computations, what may be a negative, the running condition."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.negatives import SOURCES
from tests.helpers.models import NoNoise
from tests.helpers.options import STILL_CONTREC as STILL


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a DeftRec whose stages are done."""
    return partial(staged, "DeftRec")


@pytest.mark.parametrize("source", SOURCES)
def test_negatives_are_neither_history_nor_target(ready, source):
    loaded = ready(f"--negative_source={source}", "--negatives_per_target=30", "--negative_vector=apart")
    model, drawn = loaded.model.train(), []
    model.negatives.register_forward_hook(lambda module, arguments, numbers: drawn.append((arguments[0], numbers)))
    for batch in loaded.data.train:
        users, items = batch["user_id"], batch["item_id_list"]
        model.calculate_loss(batch)
        (of, numbers), targets = drawn.pop(), model.targets(batch).targets
        assert torch.equal(of, users[targets.row]) and numbers.shape == (len(targets.items), 30)
        window = items[targets.row]  # [n, L], later items as well
        assert not (numbers[:, :, None] == window[:, None]).any()
        assert not (numbers == targets.items[:, None]).any()
        assert (numbers > 0).all() and len(numbers.unique()) > 40


def test_one_negative_is_the_mean_of_those_apart(ready):
    loaded = ready("--negatives_per_target=7")
    model = loaded.model.train()
    batch = next(iter(loaded.data.train))
    targets = model.targets(batch).targets
    torch.manual_seed(5)
    mean = model.negative_vectors(batch["user_id"], targets)
    model.mean_negative = False
    torch.manual_seed(5)
    apart = model.negative_vectors(batch["user_id"], targets)
    assert mean.shape == (len(targets.items), 1, 16) and apart.shape == (len(targets.items), 7, 16)
    torch.testing.assert_close(mean[:, 0], sum(apart[:, j] for j in range(7)) / 7)
    torch.testing.assert_close(apart.norm(dim=-1), torch.full(apart.shape[:2], 4.0))  # unit size a coordinate


# losses of the model


def test_plain_regression_and_contrast_over_windows_equal_those_over_prefixes(ready, config_of):
    """Without noise the whole objective can be compared; every target gets the same negative here."""
    from recbole.data import create_dataset, data_preparation

    loaded = ready(
        "--MAX_ITEM_LIST_LENGTH=30",
        "--train_batch_size=100000",
        *STILL,
        "--regression_weight=1",
        "--objective=regression",
        "--contrastive_weight=0.7",
    )
    model = loaded.model.double().train()
    model.negatives.forward = lambda users, count, targets: torch.full((len(users), count), 3)
    rows_config = config_of("SASRec", "--MAX_ITEM_LIST_LENGTH=30")
    rows = data_preparation(rows_config, create_dataset(rows_config))[0]
    with NoNoise(model):
        (windows,) = list(loaded.data.train)
        over_windows = torch.stack(model.calculate_loss(windows))
        over_rows = sum(torch.stack(model.calculate_loss(batch)) * len(batch) for batch in rows)
    torch.testing.assert_close(over_windows, over_rows / loaded.data.train.n_targets, atol=1e-5, rtol=0)
    assert (over_windows[:3] > 0).all()


@pytest.mark.parametrize("positions", ["one", "each"])
def test_the_condition_is_the_normalised_running_mean(ready, positions):
    loaded = ready("--condition_pooling=mean", f"--item_positions={positions}")
    model = loaded.model.eval()
    rows = next(iter(loaded.data.test))[0]
    items, users, lengths = rows["item_id_list"], rows["user_id"], rows["item_length"]
    prompt, conditions = model.history.layout(items, users), model.forward(items, users)
    states = prompt.after_items(model.backbone(prompt.vectors))
    for row, length in enumerate(lengths.tolist()):
        for place in range(length):
            mean = states[row, : place + 1].mean(0)
            torch.testing.assert_close(conditions[row, place], mean / mean.norm() * 4, atol=1e-5, rtol=1e-4)  # sqrt(16)
    assert not torch.allclose(conditions[:, 1], F.normalize(states[:, 1], dim=-1) * 4, atol=0.01)  # not the last state


@pytest.mark.parametrize("condition", ["mean", "last"])
@pytest.mark.parametrize("positions", ["one", "each"])
def test_an_answer_uses_the_condition_after_the_last_item(ready, condition, positions):
    model_and_data = ready(f"--condition_pooling={condition}", f"--item_positions={positions}")
    model = model_and_data.model.eval()
    rows = next(iter(model_and_data.data.test))[0]
    lengths = rows["item_length"]
    assert lengths.min() < lengths.max()
    conditions = model.forward(rows["item_id_list"], rows["user_id"])[torch.arange(len(lengths)), lengths - 1]
    torch.testing.assert_close(
        model.generate_preferences(rows)[0], model.head.estimate(conditions), atol=1e-4, rtol=1e-4
    )
    if condition == "last":
        prompt = model.history.layout(rows["item_id_list"], rows["user_id"])
        states = prompt.after_items(model.backbone(prompt.vectors))[torch.arange(len(lengths)), lengths - 1]
        torch.testing.assert_close(conditions, states / states.norm(dim=-1, keepdim=True) * 4, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("term", ["ranking", "regression", "contrastive", "dispersive"])
def test_a_weight_scales_its_term_and_no_other(ready, term):
    def terms(weight):
        loaded = ready(*STILL, "--regression_weight=1", "--dispersive_weight=0.3", f"--{term}_weight={weight}")
        model, batch = loaded.model.train(), next(iter(loaded.data.train))
        torch.manual_seed(0)
        return model.calculate_loss(batch)._asdict()

    whole, half = terms(0.8), terms(0.4)
    assert list(whole) == ["ranking", "regression", "contrastive", "dispersive", "language"] and whole[term] != 0
    for name in whole:
        torch.testing.assert_close(half[name], whole[name] * (0.5 if name == term else 1.0))


@pytest.mark.parametrize("arguments", [(), ("--objective=regression",), ("--negative_vector=apart",)])
def test_targets_and_negatives_teach_the_item_vectors_through_ranking_alone(ready, arguments):
    """With what the prompt reads cut off, regression and contrast leave the table alone; the ranking loss does not."""
    loaded = ready(*STILL, "--regression_weight=1", "--id_embedding=False", *arguments)
    model = loaded.model.train()
    batch = next(iter(loaded.data.train))
    terms = model.calculate_loss(batch)
    (terms.regression + terms.contrastive).backward(retain_graph=True)
    assert model.item_vectors.weight.grad is None or model.item_vectors.weight.grad.abs().sum() == 0
    assert model.items.adapter.weight.grad.abs().sum() > 0
    terms.ranking.backward()
    assert model.item_vectors.weight.grad.abs().sum() > 0


def test_negatives_leave_no_trace_in_a_checkpoint(ready):
    with_negatives, without = ready().model, ready("--contrastive_weight=0").model
    assert with_negatives.negatives is not None and without.negatives is None
    assert with_negatives.state_dict().keys() == without.state_dict().keys()


# runs


def test_a_run_learns_and_its_checkpoint_gives_its_scores_back(run_tiny):
    from recbole_contrec import load_data_and_model

    result = run_tiny(
        "DeftRec", "--epochs=15", "--eval_step=15", "--learning_rate=0.02", "--train_batch_size=64", "--dropout=0"
    )
    assert result["test_result"]["hit@5"] > 0.6  # there are two right answers among 60 items
    loaded = load_data_and_model(result["checkpoint"])
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False) == pytest.approx(result["test_result"])


def test_the_recipe_of_the_paper_runs(run_tiny):
    result = run_tiny("DeftRec-paper", "--epochs=1", "--lightgcn_epochs=2", "--noise_levels=40", "--sampling_steps=4")
    assert result["settings"]["ranking_weight"] == 0 and np.isfinite(result["best_valid_score"])
