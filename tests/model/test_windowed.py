"""What models over windows share: the items before every target, and how often people return to items."""

import numpy as np
import pytest
import torch

from recbole_contrec.data.windows import NEXT_PREFIX, Histories
from recbole_contrec.model.parts.targets import repeat_rate


def test_histories_of_targets_end_before_them(assembled):
    loaded = assembled("ContRec")
    model = loaded.model
    batch = next(iter(loaded.data.train))
    targets = model.history.targets(model.windows(batch))
    histories = targets.histories()
    assert len(histories) == len(targets.items) == model.windows.count_targets(batch)
    found = sorted((row[row > 0].tolist(), item) for row, item in zip(histories, targets.items.tolist()))
    wanted = sorted(
        (items[: place + 1].tolist(), following[place].item())
        for items, following in zip(batch["item_id_list"], batch[NEXT_PREFIX + "item_id_list"])
        for place in following.nonzero()[:, 0].tolist()
    )
    assert found == wanted


def test_repeat_rate_counts_targets_that_were_seen():
    histories = Histories(np.array([1, 2, 1, 3, 5, 5, 5]), np.array([0, 4, 7]), np.array([1, 2]))  # 3 of 5 targets
    assert repeat_rate(histories) == pytest.approx((3 + 1) / (5 + 2))
    nobody_returns = Histories(np.array([1, 2, 3]), np.array([0, 3]), np.array([1]))
    assert 0 < repeat_rate(nobody_returns) == pytest.approx(1 / 4)


@pytest.mark.parametrize("model", ["ContRec", "SASRecAll"])
def test_repeats_cost_only_where_it_is_asked_for(assembled, model):
    rows = next(iter(assembled(model).data.test))[0]
    plain, biased = (assembled(model, f"--repeat_bias={on}").model.eval() for on in (False, True))
    biased.load_state_dict({**biased.state_dict(), **plain.state_dict()})
    bias = next(p for name, p in biased.named_parameters() if name.endswith("repeat_bias")).item()
    assert bias < -3  # nobody returns in this data set
    difference = biased.full_sort_predict(rows) - plain.full_sort_predict(rows)
    seen = torch.zeros_like(difference).scatter(1, rows["item_id_list"], 1.0)
    torch.testing.assert_close(difference[:, 1:], bias * seen[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        biased.predict(rows),
        biased.full_sort_predict(rows).gather(1, rows["item_id"][:, None])[:, 0],
        atol=1e-5,
        rtol=1e-5,
    )
