"""DeftRec: the contrast with negatives against plain computations, what may be a negative, the running condition."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.diffusion import PREDICTIONS, Contrast, DiffusionHead
from recbole_contrec.negatives import SOURCES, NegativeSampler
from tests.helpers.models import NoNoise
from tests.helpers.options import STILL_CONTREC as STILL


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def ready(staged):
    """A function (*arguments) -> LoadedRun of a DeftRec whose stages are done."""
    return partial(staged, "DeftRec")


# the contrast


def test_contrasts_against_their_formulas():
    positive = torch.tensor([0.1, 0.5, 0.9, 0.2], dtype=torch.float64)
    negative = torch.tensor([[0.3, 0.5, 0.1, 0.7], [1.0, 0.4, 0.8, 0.1], [0.6, 2.0, 0.0, 0.2]], dtype=torch.float64)
    leads = [(negative[j, i] - positive[i]).item() for j in range(3) for i in range(4)]
    bpr = [np.log(1 + np.exp(-5 * lead)) for lead in leads]
    assert Contrast("bpr", scale=5.0)(positive, negative).item() == pytest.approx(np.mean(bpr), rel=1e-12)
    hinge = [max(0, 0.3 - lead) for lead in leads]
    assert 0 in hinge and max(hinge) > 0.3  # both sides of the margin
    assert Contrast("hinge", margin=0.3)(positive, negative).item() == pytest.approx(np.mean(hinge), rel=1e-12)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(kind="bqr"), "contrast must be one of bpr, hinge, not 'bqr'"),
        (dict(scale=0.0), "scale of a contrast must be positive"),
        (dict(margin=-1.0), "margin of a contrast must be positive"),
    ],
)
def test_bad_contrasts(settings, message):
    with pytest.raises(ValueError, match=message):
        Contrast(**settings)


def make_head(**settings):
    defaults = {"d": 5, "condition_size": 7, "width": 16, "levels": 50, "condition_dropout": 0.0}
    return DiffusionHead(**{**defaults, **settings})


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("same_noise", [True, False])
@pytest.mark.parametrize("kind", ["bpr", "hinge"])
def test_contrastive_loss_against_one_row_at_a_time(prediction, same_noise, kind):
    contrast = Contrast(kind, scale=3.0, margin=0.2, same_noise=same_noise)
    head = make_head(prediction=prediction, noisy_skip=prediction != "x0", noise_draws=2, contrast=contrast).double()
    torch.nn.init.normal_(head.denoiser.modulation.weight, std=0.3)
    condition, target = torch.randn(4, 7).double(), torch.randn(4, 5).double()
    negatives = torch.randn(4, 3, 5).double()
    torch.manual_seed(3)
    loss = head.contrastive_loss(condition, target, negatives)
    torch.manual_seed(3)
    t = torch.randint(50, (2, 4))
    eps = torch.randn(2, 4, 5, dtype=torch.float64) if same_noise else torch.randn(4, 2, 4, 5, dtype=torch.float64)

    def error(x0, number, draw, row):
        level = t[draw, row]
        noise = eps[draw, row] if same_noise else eps[number, draw, row]
        s, n = head.schedule.signal(level), head.schedule.noise(level)
        x_t = s * x0 + n * noise
        raw = head.denoiser(x_t[None], level[None], s[None], condition[row][None]).output[0]
        wanted = {"x0": x0, "noise": noise, "v": s * noise - n * x0}[head.space]
        return ((n * x_t + s * raw if prediction == "noise" else raw) - wanted).square().mean()

    regression, contrasts = [], []
    for draw in range(2):
        for row in range(4):
            positive = error(target[row], 0, draw, row)
            regression.append(positive)
            for j in range(3):
                lead = error(negatives[row, j], 1 + j, draw, row) - positive
                contrasts.append(-F.logsigmoid(3 * lead) if kind == "bpr" else F.relu(0.2 - lead))
    torch.testing.assert_close(loss.regression, torch.stack(regression).mean())
    torch.testing.assert_close(loss.contrast, torch.stack(contrasts).mean())
    assert loss.dispersive == 0


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_regression_is_that_of_the_loss_without_negatives(objective):
    head = make_head(dispersive="infonce_l2", objective=objective, noise_draws=2)
    condition, target, negatives = torch.randn(6, 7), torch.randn(6, 5), torch.randn(6, 3, 5)
    torch.manual_seed(1)
    plain = head.loss(condition, target)
    torch.manual_seed(1)
    contrasted = head.contrastive_loss(condition, target, negatives)
    torch.testing.assert_close(contrasted.regression, plain.regression)
    torch.testing.assert_close(contrasted.dispersive, plain.dispersive)
    assert plain.dispersive != 0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_plain_regression_is_the_error_of_the_estimate(prediction):
    contrast = Contrast(same_noise=True)
    head = make_head(prediction=prediction, objective="regression", contrast=contrast).double().eval()
    condition, target, negatives = torch.randn(6, 7).double(), torch.randn(6, 5).double(), torch.randn(6, 3, 5).double()
    loss = head.train().contrastive_loss(condition, target, negatives)
    estimate = head.eval().estimate(condition)
    positive = (estimate - target).square().mean(-1)
    negative = (estimate[:, None] - negatives).square().mean(-1)
    torch.testing.assert_close(loss.regression, positive.mean())
    torch.testing.assert_close(loss.contrast, -F.logsigmoid(negative - positive[:, None]).mean())


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_neither_targets_nor_negatives_get_a_gradient(objective):
    head = make_head(objective=objective)
    condition, target = torch.randn(6, 7, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    negatives = torch.randn(6, 3, 5, requires_grad=True)
    loss = head.contrastive_loss(condition, target, negatives)
    (loss.regression + loss.contrast).backward()
    assert target.grad is None and negatives.grad is None
    assert condition.grad.abs().sum() > 0
    (alone,) = torch.autograd.grad(head.contrastive_loss(condition, target, negatives).contrast, condition)
    assert alone.abs().sum() > 0


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_autocast_keeps_the_errors_in_full_precision(objective):
    head = make_head(prediction="noise", objective=objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.contrastive_loss(torch.randn(6, 7).bfloat16(), torch.randn(6, 5), torch.randn(6, 2, 5))
    assert loss.regression.dtype == loss.contrast.dtype == torch.float32
    (loss.regression + loss.contrast).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_learning_the_contrast_widens_the_lead():
    """Two targets a condition, of which one is a negative: only the contrast can tell them apart."""
    leads = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        head = make_head(prediction="noise", contrast=Contrast(scale=5.0))
        optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
        condition, target = torch.randn(32, 7), torch.randn(32, 5)
        negatives = torch.randn(32, 1, 5)
        for _ in range(150):
            loss = head.contrastive_loss(condition, target, negatives)
            optimizer.zero_grad()
            (loss.regression + weight * loss.contrast).backward()
            optimizer.step()
        torch.manual_seed(1)
        leads[weight] = sum(head.contrastive_loss(condition, target, negatives).contrast.item() for _ in range(20)) / 20
    assert leads[1.0] < 0.8 * leads[0.0]


def test_bad_calls():
    head = make_head()
    condition, target = torch.randn(3, 7), torch.randn(3, 5)
    for negatives in (torch.randn(3, 5), torch.randn(2, 4, 5), torch.randn(3, 0, 5), torch.randn(3, 4, 6)):
        with pytest.raises(ValueError, match=r"negatives must be \[3, R, 5\], not"):
            head.contrastive_loss(condition, target, negatives)
    with pytest.raises(ValueError, match="objective must be one of denoising, regression, not 'plain'"):
        make_head(objective="plain")


# negatives


USERS = np.array([1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3])
ITEMS = np.array([2, 5, 5, 3, 1, 6, 5, 1, 2, 3, 7])  # item 4 is nobody's, item 8 and user 4 have no interaction


def shares(sampler, user, targets=None, draws=40_000):
    """How often every item was drawn, [N]."""
    targets = torch.tensor([1]) if targets is None else targets
    drawn = sampler(torch.full((draws // 10,), user), 10, targets)
    assert drawn.shape == (draws // 10, 10)
    return drawn.flatten().bincount(minlength=9) / draws


@pytest.mark.parametrize(
    "user, free", [(1, [1, 4, 6, 7, 8]), (2, [2, 3, 4, 5, 7, 8]), (3, [4, 6, 8]), (4, range(1, 9))]
)
def test_uniform_draws_are_uniform_over_the_others(user, free):
    wanted = torch.zeros(9)
    wanted[list(free)] = 1 / len(free)
    torch.testing.assert_close(shares(NegativeSampler(USERS, ITEMS, 5, 9), user), wanted, atol=0.012, rtol=0)
    assert (shares(NegativeSampler(USERS, ITEMS, 5, 9), user)[wanted == 0] == 0).all()


@pytest.mark.parametrize("user", [1, 2, 3, 4])
def test_popular_draws_follow_popularity_among_the_others(user):
    counts = torch.from_numpy(np.bincount(ITEMS, minlength=9)).float()
    counts[ITEMS[USERS == user]] = 0
    found = shares(NegativeSampler(USERS, ITEMS, 5, 9, "popularity"), user)
    torch.testing.assert_close(found, counts / counts.sum(), atol=0.012, rtol=0)
    assert (found[counts == 0] == 0).all()


def test_draws_from_the_batch_are_its_targets_unless_all_are_the_users_own():
    sampler = NegativeSampler(USERS, ITEMS, 5, 9, "batch")
    found = shares(sampler, 1, torch.tensor([4, 4, 8, 2, 5]))  # 2 and 5 are user 1's
    # what was the user's own in all eight attempts, one in 1,500, is uniform
    torch.testing.assert_close(found[[4, 8]], torch.tensor([2 / 3, 1 / 3]), atol=0.015, rtol=0)
    assert (found[[2, 3, 5]] == 0).all()
    nothing_else = shares(sampler, 1, torch.tensor([2, 5]))
    torch.testing.assert_close(nothing_else[[1, 4, 6, 7, 8]], torch.full((5,), 0.2), atol=0.012, rtol=0)


def test_users_in_one_call_do_not_mix():
    sampler = NegativeSampler(USERS, ITEMS, 5, 9)
    users = torch.tensor([3, 1, 4, 2] * 500)
    for user, drawn in zip(users.tolist(), sampler(users, 20, users)):
        assert not set(drawn.tolist()) & set(ITEMS[USERS == user]) and (drawn > 0).all() and (drawn < 9).all()


@pytest.mark.parametrize(
    "source, message",
    [
        ("uniform", "1 of 2 users have interacted with every item"),
        ("popularity", "1 of 2 users"),
        ("popular", "choose one of uniform"),
    ],
)
def test_bad_samplers(source, message):
    with pytest.raises(ValueError, match=message):
        NegativeSampler(np.array([1, 1, 2]), np.array([1, 2, 1]), 3, 3, source)


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
