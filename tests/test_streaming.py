"""Lists for all users are written as they are made: no more than a batch of people or of rows is held."""

import gc
import weakref

import pandas as pd
import pytest

from recbole_contrec import people, recommendation
from recbole_contrec.cli.tables import write_tables
from recbole_contrec.errors import UserError
from recbole_contrec.recommendation import recommend, recommend_batches


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_no_more_than_a_batch_is_held(assembled, monkeypatch, tmp_path, ending):
    loaded, held, most = assembled("SASRec"), [], []
    batch = recommendation._as_table

    def watched(loaded, ranked):
        table = batch(loaded, ranked)
        held.append(weakref.ref(table))
        gc.collect()
        most.append(sum(len(part) for one in held if (part := one()) is not None))
        return table

    monkeypatch.setattr(recommendation, "_as_table", watched)
    path = tmp_path / f"top.{ending}"
    write_tables(recommend_batches(loaded, k=5, batch_size=4), str(path))
    written = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    assert len(held) == 10 and len(written) == 200
    assert max(most) <= 2 * 4 * 5  # the one that is made, and the one that was written before it


def test_people_are_looked_up_when_it_is_their_turn(assembled, monkeypatch):
    loaded, made = assembled("SASRec"), []

    person = people.Person
    monkeypatch.setattr(people, "Person", lambda *fields: made.append(fields[0]) or person(*fields))
    tables = recommend_batches(loaded, k=3, batch_size=4)
    next(tables)
    assert len(made) == 4
    with pytest.raises(UserError, match="no user 'nobody'"):  # before the first one is ranked
        next(recommend_batches(loaded, ["u1", "u2", "nobody"], k=3, batch_size=1))


@pytest.mark.parametrize("model", ["SASRec", "LightGCN"])
def test_scores_of_few_users_are_held_at_once(assembled, monkeypatch, model):
    loaded, rows = assembled(model), []
    wanted = recommend(loaded, k=5)
    scored = loaded.model.full_sort_predict
    monkeypatch.setattr(recommendation, "SCORES", 3 * 4 * loaded.data.dataset.item_num)
    monkeypatch.setattr(loaded.model, "full_sort_predict", lambda part: rows.append(len(part)) or scored(part))
    pd.testing.assert_frame_equal(recommend(loaded, k=5), wanted, rtol=1e-5)
    assert rows == [3] * 13 + [1]
