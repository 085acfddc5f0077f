"""The learning rate over a run, and the average of the weights."""

import pytest
import torch

from recbole_contrec.storage import checkpoint


def test_learning_rate_rises_and_falls_over_the_run(assembled):
    loaded = assembled(
        "ContRec",
        "--epochs=10",
        "--warmup_ratio=0.2",
        "--learning_rate=0.01",
        "--final_learning_rate_ratio=0.1",
        "--train_batch_size=64",
    )
    trainer, rates = loaded.trainer, []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    for epoch in range(10):
        trainer._train_epoch(loaded.data.train, epoch)
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(0.01, rel=0.05) and 0.15 < top / len(rates) < 0.25
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.001, rel=0.1)


def test_the_average_is_what_is_validated_and_kept(run_tiny, workplace):
    run_tiny("ContRec", "--epochs=1", "--ema_decay=0.9", "--run_name=run")
    last, best = (checkpoint.load(workplace / "saved" / "run" / f"{name}.safetensors") for name in ("last", "best"))
    average = last.part("average")
    for name, tensor in average.items():
        assert torch.equal(best.part("model")[name], tensor), name
    assert any(not torch.equal(last.part("model")[name], tensor) for name, tensor in average.items())


def test_the_average_works_under_any_trainer(run_tiny, workplace):
    (workplace / "properties" / "model").mkdir(parents=True)
    (workplace / "properties" / "model" / "Mine.yaml").write_text(
        "extends: SASRec\naverage_decay: 0.9  # (float; 0..<1) Moving average.\nmodel_class: "
        "recbole.model.sequential_recommender.sasrec:SASRec\n"
    )
    trained = run_tiny(
        "Mine",
        "--epochs=30",
        "--eval_step=30",
        "--learning_rate=0.01",
        "--train_batch_size=64",
        "--hidden_dropout_prob=0",
        "--attn_dropout_prob=0",
    )
    assert trained["test_result"]["hit@5"] > 0.6
