"""Users are dealt out, and metrics are computed once: the numbers, ranks and order of one process."""

import pytest

from tests.helpers.options import TINY, TINY_OF, changed
from tests.helpers.together import evaluation

GAUC = "--metrics=['NDCG','GAUC','ItemCoverage']"
CASES = {
    "a last batch of one user": ("SASRec", ("--eval_batch_size=13", GAUC, "--valid_metric=NDCG@10")),
    "all users at once": ("SASRecAll", ()),
    "seen items masked": ("ContRec", ("--mask_seen=True", "--eval_batch_size=7")),
    "semantic ids": ("TIGER", ("--eval_batch_size=7",)),
    "sampled items": ("GRU4Rec", ("--eval_args={'mode':'uni20'}", "--eval_batch_size=300")),
    "several targets a user": ("BPR", ("--eval_args={'split':{'RS':[0.6,0.1,0.3]},'order':'RO','group_by':'user'}",)),
    "several targets, sampled items": (
        "BPR",
        ("--eval_args={'split':{'RS':[0.6,0.1,0.3]},'order':'RO','group_by':'user','mode':'uni20'}",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_metrics_and_ranks_are_those_of_one_process(together, tiny, workplace, case):
    model, more = CASES[case]
    arguments = changed([*TINY_OF.get(model, TINY), f"--data_path={tiny}"], more)
    alone = evaluation(model, arguments, False)
    (workplace / "ranks" / "test_ranks.npz").unlink(missing_ok=True)
    found = together("evaluation", workplace, model, arguments, True)
    assert [code for code, *_ in found] == [0, 0], found
    results = [one["result"] for *_, one in found]
    assert results[0] == results[1] == pytest.approx(alone["result"], abs=1e-4)
    assert found[0][2]["ranks"] == alone["ranks"]
