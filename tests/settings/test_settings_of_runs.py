"""RecBole's settings of a run: where it writes, how it trains."""

import logging
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from recbole.trainer import Trainer
from torch import optim

from recbole_contrec.errors import UserError
from recbole_contrec.loaded_run import settings_of

MODELS = ["SASRec", "ContRec"]


def test_where_things_are_written(run_tiny, workplace, capsys):
    result = run_tiny("SASRec", "--epochs=1", "--checkpoint_dir=kept/here", "--state=ERROR", "--show_progress=True")
    assert result["checkpoint"].startswith("kept/here/") and not (workplace / "saved").exists()
    assert logging.getLogger().level == logging.ERROR
    assert "Evaluate" in capsys.readouterr().err  # the bar
    run_tiny("SASRec", "--epochs=1", "--show_progress=False", "--state=info")
    assert "Evaluate" not in capsys.readouterr().err and logging.getLogger().level == logging.INFO


@pytest.mark.parametrize("model", MODELS)
def test_seed_and_order_of_batches(assembled, model):
    def targets(*arguments):
        loaded = assembled(model, *arguments)
        field = "item_id" if model == "SASRec" else "next_item_id_list"
        weight = next(loaded.model.parameters()).detach().clone()
        return (
            weight,
            torch.cat([batch[field].flatten() for batch in loaded.data.train]),
            torch.are_deterministic_algorithms_enabled(),
        )

    first, second, other = targets("--seed=3"), targets("--seed=3"), targets("--seed=4")
    assert all(torch.equal(a, b) for a, b in zip(first[:2], second[:2]))
    assert not torch.equal(first[1], other[1]) or not torch.equal(first[0], other[0])
    plain = [targets(f"--seed={seed}", "--shuffle=False")[1] for seed in (3, 4)]
    if model == "SASRec":
        assert torch.equal(plain[0], plain[1]) and not torch.equal(plain[0], first[1])
    loader = assembled(model, "--shuffle=False").data.train
    assert loader.shuffle is False and assembled(model).data.train.shuffle is True
    assert torch.backends.cudnn.deterministic is True
    assembled(model, "--reproducibility=False")
    assert torch.backends.cudnn.deterministic is False


def test_a_knowledge_model_always_shuffles(config_of):
    with pytest.raises(UserError, match="CFKG always shuffles"):
        config_of("CFKG", "--shuffle=False")


def test_workers_change_nothing(assembled):
    rows = [
        torch.cat([batch["item_id"] for batch in assembled("SASRec", f"--worker={worker}").data.train])
        for worker in (0, 1)
    ]
    assert torch.equal(*rows)


def test_wandb_gets_the_project(config_of, monkeypatch):
    from recbole.utils import WandbLogger

    begun = {}
    module = SimpleNamespace(
        run=None, config=None, init=lambda **arguments: begun.update(arguments), define_metric=lambda *_, **__: None
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    WandbLogger(config_of("SASRec", "--log_wandb=True", "--wandb_project=mine"))
    assert begun["project"] == "mine"


def test_length_and_steps_of_training(run_tiny, monkeypatch, caplog):
    scores = iter([0.3, 0.2, 0.1])
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_valid_epoch", lambda *_, **__: (next(scores), {}))
        result = run_tiny("SASRec", "--epochs=7", "--eval_step=2", "--stopping_step=0", "--train_batch_size=100")
    with caplog.at_level(logging.INFO):
        assert run_tiny("ContRec", "--epochs=1", "--loss_decimal_place=2")["epochs"] == 1
    assert [point["epoch"] for point in result["curve"]] == [1, 3] and result[
        "epochs"
    ] == 4  # nothing better after the second
    plain = re.sub(r"\x1b\[[\d;]*m", "", caplog.text)
    assert re.search(r"epoch 0 training \[.*ranking: \d+\.\d\d[,\]]", plain)


@pytest.mark.parametrize("model", MODELS)
def test_the_optimizer(assembled, model):
    for name, kind in {"sgd": optim.SGD, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}.items():
        optimizer = assembled(
            model, f"--learner={name}", "--learning_rate=0.07", "--weight_decay=0.03"
        ).trainer.optimizer
        assert type(optimizer) is kind and optimizer.param_groups[0]["lr"] == 0.07
        assert optimizer.param_groups[0]["weight_decay"] == 0.03


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_clipped(assembled, model):
    """SGD goes as far as the bound on the norm lets it."""
    moved = {}
    for bound in (1e-4, 1.0):
        loaded = assembled(
            model,
            "--learner=sgd",
            "--learning_rate=1.0",
            f"--clip_grad_norm={{'max_norm': {bound}}}",
            "--weight_decay=0",
            *(("--warmup_ratio=0",) if model == "ContRec" else ()),
        )
        before = [p.detach().clone() for p in loaded.model.parameters()]
        loaded.trainer._train_epoch(loaded.data.train, 0)
        moved[bound] = max(float((p - q).abs().max()) for p, q in zip(before, loaded.model.parameters()))
    assert moved[1e-4] <= 1e-4 * len(loaded.data.train) < moved[1.0]


@pytest.mark.parametrize("model", MODELS)
def test_mixed_precision(assembled, config_of, monkeypatch, model):
    seen = []
    loaded = assembled(model, "--enable_amp=True")
    loss = loaded.model.calculate_loss

    def watched(batch):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return loss(batch)

    monkeypatch.setattr(loaded.model, "calculate_loss", watched)
    loaded.trainer._train_epoch(loaded.data.train, 0)
    assert {on for on, _ in seen} == {True} and {kind for _, kind in seen} == {torch.bfloat16}
    if model == "ContRec":
        with pytest.raises(UserError, match="bf16"):
            config_of(model, "--enable_scaler=True")
    else:
        with pytest.raises(UserError, match="scaled"):
            config_of(model, "--enable_scaler=True", "--clip_grad_norm={'max_norm': 1.0}")


def test_validations_that_would_never_come_are_refused(config_of):
    with pytest.raises(UserError, match="eval_step=3: of epochs=2 none would be validated.* set eval_step=2 or less"):
        config_of("SASRec", "--epochs=2", "--eval_step=3")
    config_of("SASRec", "--epochs=0", "--eval_step=3")


@pytest.mark.parametrize("key", ["llm", "text_encoder"])
def test_pretrained_models_are_found_again_from_anywhere(config_of, workplace, key):
    (workplace / "packed.gguf").touch()
    (workplace / "folder").mkdir()
    for name in ("packed.gguf", "folder"):
        assert settings_of(config_of("ContRec", f"--{key}={name}"))[key] == str(workplace.resolve() / name)
    assert settings_of(config_of("ContRec", f"--{key}=some/Model"))[key] == "some/Model"
