"""The training step: which parameters decay, what is clipped, and how half precision is trained."""

import pytest
import torch
from torch import nn

from recbole_contrec.errors import UserError
from recbole_contrec.training.window_trainer import loss_scaler, parameter_groups
from tests.helpers.files import STORIES

OWN = {
    "ContRec": (),
    "DeftRec": (),
    "TokenRec": (),
    "TIGER": ("--user_buckets=5",),
    "SIIT-states": ("--backbone=t5",),
    "SASRecAll": (),
}


def names_of(model, group):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in group["params"]}


@pytest.mark.parametrize(
    "model, arguments",
    [
        *OWN.items(),
        ("TokenRec", ("--backbone=t5",)),
        ("ContRec", ("--answer_weight=0.1", "--vocabulary_size=300")),
        ("ContRec", (f"--llm={STORIES}", "--lora_rank=2", "--user_tokens=0")),
    ],
)
def test_matrices_decay_and_nothing_else(assembled, model, arguments):
    recommender = assembled(model, *arguments).model
    decaying, others = (names_of(recommender, group) for group in parameter_groups(recommender, 0.1))
    assert decaying | others == {name for name, p in recommender.named_parameters() if p.requires_grad}
    modules = dict(recommender.named_modules())
    for name in decaying:
        owner, _, last = name.rpartition(".")
        assert last == "weight" and recommender.get_parameter(name).dim() > 1
        assert not isinstance(modules[owner], (nn.Embedding, nn.LayerNorm))
    for name in others:
        owner, _, last = name.rpartition(".")
        assert last != "weight" or isinstance(modules[owner], nn.Embedding) or recommender.get_parameter(name).dim() < 2


def test_a_module_says_which_of_its_parameters_are_no_matrices():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.start, self.head_bias = (nn.Parameter(torch.zeros(2, 3)) for _ in range(3))

        def no_weight_decay(self):
            return {"start"}

    model = nn.Sequential(Module(), nn.Linear(2, 2))
    decaying, others = (names_of(model, group) for group in parameter_groups(model, 0.1))
    assert decaying == {"0.matrix", "1.weight"} and others == {"0.start", "0.head_bias", "1.bias"}


@pytest.mark.parametrize("model", ["ContRec", "TokenRec", "TIGER"])
def test_fitted_parts_leave_no_gradients(staged, model):
    recommender = staged(model).model
    assert not [name for name, p in recommender.named_parameters() if p.grad is not None]


def test_only_what_is_trained_is_clipped(staged, monkeypatch):
    loaded = staged("ContRec")
    frozen = [p for p in loaded.model.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.grad = torch.full_like(parameter, 1e6)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters() if p.requires_grad}
    clipped = []
    monkeypatch.setattr(
        "recbole_contrec.training.window_trainer.clip_grad_norm_",
        lambda parameters, **_: clipped.extend(map(id, parameters)),
    )
    loaded.trainer._train_epoch(loaded.data.train, 0)
    trained = {id(p) for p in loaded.model.parameters() if p.requires_grad}
    assert set(clipped) == trained
    assert any(not torch.equal(before[name], p) for name, p in loaded.model.named_parameters() if name in before)


HALF = (f"--llm={STORIES}", "--llm_dtype=float16", "--lora_rank=2", "--user_tokens=0")


def test_the_loss_of_float16_is_scaled(staged):
    """Gradients too small for float16 reach the adapters, and steps that overflow are left out."""
    loaded = staged("ContRec", *HALF, "--learning_rate=1e-3")
    trainer, model = loaded.trainer, loaded.model.train()
    assert trainer.scaler.is_enabled()
    adapter = next(p for name, p in model.named_parameters() if "lora_B" in name)
    batch = next(iter(loaded.data.train))
    found = {}
    for scale in (1.0, 1024.0):
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.optimizer.zero_grad()
        torch.manual_seed(0)
        seen = []
        hook = trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(adapter.grad.clone()))
        trainer.scaler.scale(1e-6 * sum(model.calculate_loss(batch))).backward()  # as small as of many targets
        trainer.step()
        hook.remove()
        found[scale] = seen[0]
        with torch.no_grad():
            adapter.zero_()
    assert (found[1024.0] != 0).float().mean() > (found[1.0] != 0).float().mean()

    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.optimizer.zero_grad()
    trainer.scaler.scale(sum(model.calculate_loss(batch))).backward()
    trainer.step()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert trainer.scaler.get_scale() == 2.0**39


def test_a_resumed_run_goes_on_with_its_scale(staged):
    first, second = (staged("ContRec", *HALF, "--epochs=2", "--run_name=half") for _ in range(2))
    first.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**5)
    first.trainer._train_epoch(first.data.train, 0)
    first.trainer.best_valid_score = 0.0
    first.trainer.save_state(0, first.data.train)
    second.trainer.resume_checkpoint("saved/half")
    assert second.trainer.scaler.state_dict() == first.trainer.scaler.state_dict()
    assert second.trainer.scaler.state_dict()["scale"] == 2.0**5


def test_weights_of_float16_are_not_trained(assembled):
    with pytest.raises(UserError, match="llm_dtype=float16 with lora_rank=0: .*set llm_dtype=float32"):
        assembled("ContRec", f"--llm={STORIES}", "--llm_dtype=float16", "--lora_rank=0").trainer


def test_full_precision_is_not_scaled():
    model = nn.Linear(2, 2)
    assert not loss_scaler(model, "cpu").is_enabled() and not loss_scaler(model.bfloat16(), "cpu").is_enabled()
