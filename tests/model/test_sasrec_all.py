"""The control: RecBole's SASRec to the last score, trained at every position."""

import pytest
import torch
import torch.nn.functional as F

from recbole_contrec.data.windows import NEXT_PREFIX


def test_scores_and_parameters_are_those_of_recbole(assembled):
    ours, theirs = assembled("SASRecAll").model.eval(), assembled("SASRec").model.eval()
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in theirs.named_parameters()
    }
    theirs.load_state_dict(ours.state_dict())
    rows = next(iter(assembled("SASRecAll").data.test))[0]
    assert torch.equal(ours.full_sort_predict(rows), theirs.full_sort_predict(rows))


def test_window_loss_equals_the_loss_of_recbole_over_all_prefixes(assembled):
    """But for the padding, which RecBole's softmax takes for a candidate."""
    still = ("--hidden_dropout_prob=0", "--attn_dropout_prob=0", "--MAX_ITEM_LIST_LENGTH=30")
    loaded = assembled("SASRecAll", *still)
    model = loaded.model.train()
    count = 0
    for batch in loaded.data.train:
        items, targets = batch["item_id_list"], batch[NEXT_PREFIX + "item_id_list"]
        losses = []
        for row, place in (targets > 0).nonzero().tolist():
            prefix = torch.zeros_like(items[row])
            prefix[: place + 1] = items[row, : place + 1]
            state = model.forward(prefix[None], torch.tensor([place + 1]))
            losses.append(F.cross_entropy(state @ model.item_embedding.weight[1:].T, targets[row, place][None] - 1))
        assert model.calculate_loss(batch).ranking.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
        assert model.windows.count_targets(batch) == len(losses)
        count += len(losses)
    assert count == loaded.data.train.n_targets


def test_it_learns(run_tiny):
    trained = run_tiny(
        "SASRecAll",
        "--epochs=30",
        "--eval_step=30",
        "--learning_rate=0.01",
        "--train_batch_size=64",
        "--hidden_dropout_prob=0",
        "--attn_dropout_prob=0",
    )
    assert trained["test_result"]["hit@5"] > 0.6


def test_embeddings_can_start_at_the_vectors_of_contrec(assembled, staged):
    model = assembled("SASRecAll-svd", "--hidden_size=16").model
    contrec = staged("ContRec", "--item_vectors_init=vectors", "--train_item_vectors=True").model
    torch.testing.assert_close(model.item_embedding.weight, contrec.item_vectors.weight)
    assert model.item_embedding.weight.requires_grad and not model.item_embedding.weight[0].any()
