"""A batch in parts, one after the other: the gradients, the losses and the steps of the whole batch."""

import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from recbole_contrec.training.shares import SharedLoss
from tests.distributed.test_training import still
from tests.helpers.files import STORIES

MODELS = ("ContRec", "DeftRec", "TokenRec", "TIGER", "SIIT-states", "SASRecAll")


def gradients(model, computed):
    """Of terms that are computed one after the other, and their sum."""
    model.zero_grad()
    total = 0.0
    for compute in computed:
        loss = sum(compute())
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("model", MODELS)
def test_parts_have_the_gradients_of_the_whole_batch(staged, tiny, model):
    """The mean over all targets, and not the mean of the means of uneven parts; as many parts as rows where these are
    few."""
    loaded = staged(model, *still(model, tiny))
    recommender = loaded.model.double().eval()
    whole = next(iter(loaded.data.train))
    for batch in (whole, whole[:2], whole[:1]):
        loss, expected = gradients(recommender, [lambda batch=batch: recommender.calculate_loss(batch)])
        parts = SharedLoss(recommender, 3).parts(batch)
        assert len(parts) == min(3, len(batch))
        found_loss, found = gradients(recommender, parts)
        assert found_loss == pytest.approx(loss, rel=1e-6) and found.keys() == expected.keys()
        largest = max(float(gradient.abs().max()) for gradient in expected.values() if gradient.numel())
        assert largest > 0
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6 * largest)


def test_every_row_is_in_one_part_and_all_are_as_long(staged, tiny):
    """What is computed at once is a third, in rows and in positions."""
    loaded = staged("SASRecAll", *still("SASRecAll", tiny))
    seen = []
    batch = next(iter(loaded.data.train))
    loss, loaded.model.calculate_loss = loaded.model.calculate_loss, lambda rows: seen.append(rows) or loss(rows)
    for compute in SharedLoss(loaded.model, 3).parts(batch):
        compute()
    users = torch.cat([rows["user_id"] for rows in seen])
    assert sorted(users.tolist()) == sorted(batch["user_id"].tolist())
    positions = [int(rows["item_length"].sum()) for rows in seen]
    assert max(positions) - min(positions) <= int(batch["item_length"].max())


HALF = (f"--llm={STORIES}", "--llm_dtype=float16", "--lora_rank=2", "--epochs=1")


@pytest.mark.parametrize("model, more", [("SASRecAll", ()), ("TokenRec", HALF)])
def test_a_run_in_parts_trains_as_one_without(tiny, workplace, run_tiny, model, more):
    """Losses, clipping, the scale of the loss, the schedule of the learning rate and the average of the weights."""
    arguments = still(model, tiny, "--clip_grad_norm={'max_norm':0.1}", "--ema_decay=0.9", *more)
    runs = {}
    for steps in (1, 3):
        run_tiny(model, *arguments, f"--accumulate_steps={steps}", f"--run_name={steps}")
        runs[steps] = checkpoint.load(workplace / "saved" / str(steps) / "last.safetensors")
    losses = [[*run.record["train_loss"].values()] for run in runs.values()]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3 if more else 1e-5)
    steps = [{name: t for name, t in run.tensors.items() if name.endswith(".step")} for run in runs.values()]
    assert steps[0] and all(torch.equal(step, steps[1][name]) for name, step in steps[0].items())
    for name, tensor in runs[1].part("model").items():
        if tensor.is_floating_point() and tensor.numel():
            assert (tensor - runs[3].part("model")[name]).abs().max() < 5e-3, name


def test_one_part_changes_no_bit(tiny, workplace, run_tiny):
    for name, more in (("without", ()), ("with", ("--accumulate_steps=1",))):
        run_tiny("ContRec", "--epochs=1", f"--run_name={name}", *more)
    one, other = (checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in ("without", "with"))
    assert all(torch.equal(tensor, other.part("model")[name]) for name, tensor in one.part("model").items())


@pytest.mark.parametrize("model", ("SASRec", "BPR"))
def test_models_of_recbole_refuse_it(run_tiny, model):
    with pytest.raises(UserError, match="accumulate_steps"):
        run_tiny(model, "--accumulate_steps=2")
