"""Lazy Adam: sparse gradients of item tables, their clipping, their average and their optimizer."""

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from recbole_contrec.storage import checkpoint
from recbole_contrec.training.averaging import WeightAverage
from recbole_contrec.training.lazy_rows import LazyRows, as_dense, sparse_tables
from recbole_contrec.training.window_trainer import WindowTrainer

LAZY = ("--ranking_negatives=20", "--lazy_adam=True")


class Tied(nn.Module):
    """A table that is read and that ranks, and a matrix between."""

    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.matrix = nn.Embedding(12, 4, sparse=sparse), nn.Linear(4, 4)

    def loss(self, rows):
        """Every row twice: read and compared."""
        return 5 * (self.matrix(self.table(rows)) - self.table(rows.flip(0))).square().sum()


def trained(sparse, steps, average=None):
    """A model, its optimizer and the average of its weights after steps on some rows each, with clipped gradients."""
    model = Tied(sparse)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, betas=(0.9, 0.98), weight_decay=0)
    lazy = LazyRows(sparse_tables(model))
    optimizer.register_step_pre_hook(lazy)
    mean = WeightAverage(model, 0.8, lazy.tables)
    lazy.before = mean.before
    optimizer.register_step_post_hook(lambda *_: mean.update())
    norms = []
    for rows in steps:
        optimizer.zero_grad()
        model.loss(rows).backward()
        norms.append(clip_grad_norm_(as_dense(model.parameters()), 1.0))
        optimizer.step()
    return model, optimizer, mean, torch.stack(norms)


def test_where_every_row_is_touched_it_is_adam():
    steps = [torch.randperm(12) for _ in range(6)]
    (one, adam, average, norms), (other, lazy, lazy_average, lazy_norms) = (
        trained(sparse, steps) for sparse in (False, True)
    )
    assert (norms > 1).all()
    torch.testing.assert_close(lazy_norms, norms)
    for ours, theirs in zip(other.parameters(), one.parameters()):
        torch.testing.assert_close(ours, theirs)
        for name, value in adam.state[theirs].items():
            torch.testing.assert_close(lazy.state[ours][name], value)
    for name, tensor in average.average.items():
        torch.testing.assert_close(lazy_average.average[name], tensor)


def test_rows_that_are_not_touched_keep_their_moments():
    model, optimizer, _, _ = trained(True, [torch.tensor([3, 5, 7]), torch.tensor([5, 7])])
    weight, moments = model.table.weight, optimizer.state[model.table.weight]
    untouched = [row for row in range(12) if row not in (3, 5, 7)]
    assert torch.equal(weight[untouched], Tied(True).table.weight[untouched])
    assert not moments["exp_avg"][untouched].any() and moments["exp_avg"][3].any()
    before = weight[3].clone(), moments["exp_avg"][3].clone()
    model.loss(torch.tensor([5])).backward()
    optimizer.step()
    assert torch.equal(weight[3], before[0]) and torch.equal(moments["exp_avg"][3], before[1])
    assert weight.grad is None  # taken by the hook: a dense step would stumble over it


def test_the_average_of_rows_is_that_of_whole_tables():
    steps = [torch.randint(0, 12, (3,)) for _ in range(30)]
    model, table = Tied(True), None
    eager, lazy = WeightAverage(model, 0.8), WeightAverage(model, 0.8, [model.table.weight])
    table = model.table.weight
    for number, rows in enumerate(steps):
        rows = rows.unique()
        lazy.before(table, rows)
        with torch.no_grad():
            table[rows] += torch.randn(len(rows), 4)
            model.matrix.weight += 0.1
        eager.update()
        lazy.update()
        if number in (9, 10):  # what is asked for in between changes nothing
            with eager.applied():
                wanted = table.detach().clone()
            with lazy.applied():
                torch.testing.assert_close(table, wanted)
    for name, tensor in eager.average.items():
        torch.testing.assert_close(lazy.average[name], tensor)


def test_a_step_that_overflows_changes_no_row():
    model = Tied(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    model.loss(torch.tensor([1])).backward()
    optimizer.found_inf, before = torch.tensor(1.0), model.table.weight.detach().clone()
    LazyRows([model.table.weight])(optimizer)
    assert torch.equal(model.table.weight, before) and model.table.weight.grad is None


@pytest.mark.parametrize(
    "model, more",
    [
        ("ContRec", ()),
        ("ContRec", ("--train_item_tokens=True", "--similarity=inner", "--item_vectors_init=vectors")),
        ("DeftRec", ()),
        ("TokenRec", ("--pairwise_weight=1",)),
        ("TokenRec", ("--backbone=t5",)),
        ("SASRecAll", ("--item_vectors=svd+text", "--train_text_columns=False", "--hidden_size=16")),
        ("SASRecAll", ("--repeat_bias=True",)),
    ],
)
def test_gradients_of_item_tables_are_sparse_and_right(staged, model, more):
    found = []
    for lazy in (False, True):
        loaded = staged(model, *more, "--ranking_negatives=20", f"--lazy_adam={lazy}")
        recommender = loaded.model.eval()
        torch.manual_seed(0)
        sum(recommender.calculate_loss(next(iter(loaded.data.train)))).backward()
        tables = {id(table) for table in sparse_tables(recommender)}
        assert len(tables) == lazy * (1 + ("--train_item_tokens=True" in more))
        gradients = {name: p.grad for name, p in recommender.named_parameters() if p.grad is not None}
        assert sum(gradient.is_sparse for gradient in gradients.values()) == len(tables)
        found.append({name: g.to_dense() if g.is_sparse else g for name, g in gradients.items()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


@pytest.mark.parametrize("model", ["ContRec", "SASRecAll"])
def test_a_run_goes_on_where_it_stopped(run_tiny, workplace, monkeypatch, model):
    told = (*LAZY, "--ema_decay=0.9", "--epochs=3")
    whole = run_tiny(model, *told, "--run_name=whole")
    train = WindowTrainer._train_epoch

    def stop(self, data, epoch, *args, **kwargs):
        if epoch == 2:
            raise KeyboardInterrupt
        return train(self, data, epoch, *args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(WindowTrainer, "_train_epoch", stop)
        run_tiny(model, *told, "--run_name=parts")
    again = run_tiny(model, *told, "--run_name=parts", resume="saved/parts")
    assert again["test_result"] == whole["test_result"]
    one, other = (checkpoint.load(workplace / "saved" / name / "last.safetensors") for name in ("whole", "parts"))
    assert one.record["train_loss"] == other.record["train_loss"]
    for name, tensor in one.tensors.items():
        assert torch.equal(other.tensors[name], tensor), name
