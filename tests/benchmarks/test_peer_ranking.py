"""What a peer counts in its own environment: places of targets, and its best epoch."""

import numpy as np
import pytest
import torch

from benchmarks.peer.exchange import Ranked
from benchmarks.peer.progress import Progress
from benchmarks.peer.ranking import ndcg_at_10, rank_targets

# places


def test_places_count_ties_and_leave_out_what_was_seen():
    scores = torch.tensor([[9.0, 1.0, 3.0, 3.0, 2.0, 3.0], [9.0, 5.0, 4.0, 3.0, 2.0, -torch.inf]])
    targets, seen = np.array([3, 5]), [np.array([2, 3, 3]), np.array([1, 5])]
    plain = rank_targets([scores[:1], scores[1:]], targets, 3)
    assert plain.rank.tolist() == [1, 5] and plain.ties.tolist() == [2, 0]
    assert plain.top.tolist() == scores[:, :].masked_fill(torch.arange(6) == 0, -torch.inf).topk(3).indices.tolist()
    masked = rank_targets([scores], targets, 3, seen)
    assert masked.rank.tolist() == [1, 4] and masked.ties.tolist() == [1, 1]  # the target itself stays, 2 and 1 go
    assert scores[0, 0] == 9 and scores[1, 1] == 5  # the scores are the caller's
    with pytest.raises(ValueError, match="scores are NaN"):
        rank_targets([scores * torch.nan], targets, 3)
    with pytest.raises(ValueError, match="scores of 1 users, and 2 targets"):
        rank_targets([scores[:1]], targets, 3)


def test_ndcg_of_the_users_that_have_a_target():
    ranked = Ranked(np.array([1, 2, 9]), np.zeros(3), np.array([[4, 5, *range(10, 18)]] * 3))
    assert ndcg_at_10(ranked, np.array([4, 5, 0])) == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert ndcg_at_10(ranked, np.array([9, 17, 0])) == pytest.approx(1 / np.log2(11) / 2)


# epochs


def test_the_best_epoch_is_kept_and_patience_ends(tmp_path, capsys):
    progress = Progress(tmp_path, epochs=9, patience=1)
    for epoch, score in enumerate([0.1, 0.3, 0.3, 0.2]):
        assert progress.epochs_left == 9 - epoch
        progress.add(score, 1.0, {"w": torch.tensor([float(epoch)])}, {"step": epoch})
    assert progress.best_epoch == 1 and progress.best["w"].tolist() == [1]  # the first of equal ones
    assert progress.patience_is_over and progress.epochs_left == 0
    assert "epoch 1 evaluating [valid_score: 0.300000]" in capsys.readouterr().out

    again = Progress(tmp_path, epochs=9, patience=3)
    assert again.epochs_left == 5 and again.best["w"].tolist() == [1] and again.resumed["weights"]["w"].tolist() == [3]
    again.add(0.4, 1.0, {"w": torch.tensor([4.0])}, {})
    assert again.best_epoch == 4 and [point["epoch"] for point in again.curve] == [0, 1, 2, 3, 4]
    seconds = [point["seconds"] for point in again.curve]
    assert seconds == sorted(seconds) and len(again.epoch_seconds) == 5
