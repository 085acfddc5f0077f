"""The repeat bias of trained models of RecBole: its likelihood, its scores, and its row beside that of the model."""

import json

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from scipy.optimize import minimize_scalar

from benchmarks import compare as compare_script
from benchmarks.lib import repeats, significance
from benchmarks.report import rows as report_rows
from benchmarks.report import tables
from benchmarks.report.overview import overview_table
from recbole_contrec.errors import UserError
from tests.helpers.options import TINY

SETTINGS = [argument for argument in TINY if "show_progress" not in argument]


class Scorer(torch.nn.Module):
    """Scores [n, N] by number of the row, in place of a trained model."""

    ITEM_SEQ, POS_ITEM_ID, device = "item_id_list", "item_id", torch.device("cpu")

    def __init__(self, scores):
        super().__init__()
        self.scores, self.read = scores, []

    def full_sort_predict(self, interaction):
        self.read += interaction["row"].tolist()
        return self.scores[interaction["row"]].flatten()  # as some models of RecBole give them


class Rows:
    """A data set of histories and targets."""

    def __init__(self, n=600, n_items=12, length=5, seed=0):
        draw = torch.Generator().manual_seed(seed)
        history = torch.randint(1, n_items, (n, length), generator=draw)
        history[:, 3:] *= torch.randint(2, (n, 1), generator=draw)  # some are shorter
        target = torch.randint(1, n_items, (n,), generator=draw)
        self.inter_feat = Interaction({"row": torch.arange(n), "item_id_list": history, "item_id": target})
        self.scores = 2 * torch.randn(n, n_items, generator=draw)


def test_the_bias_is_that_of_greatest_likelihood():
    data = Rows()
    found = repeats.fit(Scorer(data.scores), data, seed=1, targets=10_000)
    rows = torch.arange(len(data.inter_feat))
    target, history = data.inter_feat["item_id"], data.inter_feat["item_id_list"]
    seen = torch.stack([torch.isin(torch.arange(12), items) for items in history])
    seen[:, 0] = False

    def negative_likelihood(bias):
        scores = (data.scores.double() + bias * seen)[:, 1:]
        return -scores.log_softmax(1)[rows, target - 1].mean().item()

    share = seen[rows, target].double().mean().item()
    best = minimize_scalar(negative_likelihood, bounds=(-10, 10), method="bounded", options={"xatol": 1e-8}).x
    assert found.repeats == pytest.approx(share) and found.targets == 600 and 0.2 < share < 0.5
    assert found.value == pytest.approx(best, abs=0.01)  # one target of each kind is added to 600
    assert found.expected_without == pytest.approx(
        (data.scores[:, 1:].softmax(1) * seen[:, 1:]).sum(1).mean().item(), abs=1e-6
    )


def test_where_nothing_repeats_the_bias_is_finite():
    data = Rows()
    data.inter_feat["item_id_list"][:] = 1
    data.inter_feat["item_id"][:] = 2
    found = repeats.fit(Scorer(torch.zeros(600, 12)), data, seed=1)
    assert found.repeats == 0 and found.value == pytest.approx(np.log(10 / 601))  # odds 1 to 601, of one item to ten


def test_where_every_history_holds_the_whole_catalogue_a_line_says_so():
    data = Rows(n=50, n_items=4)
    data.inter_feat["item_id_list"][:, :3] = torch.tensor([1, 2, 3])
    with pytest.raises(UserError, match="each of 50 training histories holds the whole catalogue.*--repeat-bias"):
        repeats.fit(Scorer(data.scores), data, seed=1)
    data.inter_feat["item_id_list"][7] = 1  # one that does not is enough
    assert repeats.fit(Scorer(data.scores), data, seed=1).targets == 1


def test_a_sample_is_drawn_by_the_seed():
    data, model = Rows(), Scorer(Rows().scores)
    first, again, other = (repeats.fit(model, data, seed=seed, targets=50).value for seed in (1, 1, 2))
    assert first == again != other and len(model.read) == 150 and model.read[:50] == model.read[50:100]


def test_it_is_added_once_and_never_to_the_padding():
    model = Scorer(torch.zeros(2, 6))
    rows = Interaction({"row": torch.arange(2), "item_id_list": torch.tensor([[3, 3, 5], [1, 0, 0]])})
    scores = repeats.WithRepeatBias(model, -2.0).full_sort_predict(rows)
    assert scores.tolist() == [[0, 0, 0, -2, 0, -2], [0, -2, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "model, takes",
    [
        *dict.fromkeys(("SASRec", "SASRec-200", "GRU4Rec", "BERT4Rec", "HGN"), True).items(),
        *dict.fromkeys(("ContRec", "SASRecAll", "Pop", "LightGCN", "RepeatNet", "DIN"), False).items(),
    ],
)
def test_which_models_take_it(model, takes):
    assert repeats.takes_repeat_bias(model) == takes


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec"])
def test_a_training_gives_two_rows(model, tiny, workplace, executed, capsys):
    def compare(*arguments):
        return compare_script.main(
            ["--dataset=tiny", f"--data_path={tiny}", f"--output={workplace / 'results'}", "--seeds=1", *arguments]
        )

    assert compare("--models", model, "Pop", "--repeat-bias", *SETTINGS[:1]) == 0
    folder = workplace / "results" / "tiny"
    plain, biased = (json.loads((folder / row / "seed2020.json").read_text()) for row in (model, f"{model},repeat"))
    assert not list(folder.glob("*/*.work")) and not (folder / "Pop,repeat").exists()
    assert "repeat_bias" not in plain and str(workplace) not in json.dumps(biased)
    assert biased["curve"] == plain["curve"] and biased["settings"] == plain["settings"]
    assert biased["repeat_bias"]["repeats"] == 0 and biased["repeat_bias"]["value"] < 0  # nobody walks in a circle
    assert biased["repeat_bias"]["expected_without"] > 0.01 > biased["repeat_bias"]["on_validation"]["expected"]
    assert biased["test_result"] != plain["test_result"]
    for row, content in ((model, plain), (f"{model},repeat", biased)):
        with np.load(folder / row / "seed2020.npz") as ranks:
            mean = significance.ndcg(ranks["rank"], ranks["ties"]).mean()
        assert mean == pytest.approx(content["test_result"]["ndcg@10"], abs=1e-4)
    table = report_rows.rows(folder)
    assert f"| {model},repeat | as in RecBole, repeat bias afterwards |" in tables.accuracy_table(table)
    assert f"| {model},repeat |" in overview_table({"tiny": table[:2]}).partition("**RecBole**")[2]
    best = tables.best_baseline(table, report_rows.is_recbole)
    assert best.name == model and f"{model},repeat" in tables.test_table(table, counts=report_rows.is_recbole)

    ran = len(executed[0])
    assert compare("--models", model, "Pop", "--repeat-bias", *SETTINGS[:1]) == 0
    assert compare("--models", model, *SETTINGS[:1]) == 0 and len(executed[0]) == ran
    for lost, stays in ((f"{model},repeat", model), (model, f"{model},repeat")):
        (folder / lost / "seed2020.json").unlink()
        before = {path: path.read_bytes() for path in (folder / stays).iterdir()}
        assert compare("--models", model, "--repeat-bias", *SETTINGS[:1]) == 0
        again = json.loads((folder / lost / "seed2020.json").read_text())
        assert again["test_result"] == {model: plain}.get(lost, biased)["test_result"]
        assert {path: path.read_bytes() for path in (folder / stays).iterdir()} == before
    other = SETTINGS[:1] + ["--train_batch_size=64"]
    assert compare("--models", model, "--repeat-bias", *other) == 2
    assert compare("--models", model, "--repeat-bias", *other, "--again") == 0
    for row in (model, f"{model},repeat"):  # neither stays with other settings
        assert json.loads((folder / row / "seed2020.json").read_text())["settings"]["train_batch_size"] == 64


def test_models_that_learn_their_bias_are_refused(capsys):
    assert compare_script.main(["--dataset=tiny", "--models", "ContRec", "Pop", "--repeat-bias"]) == 2
    assert "ContRec, Pop: not one of RecBole's own sequential models" in capsys.readouterr().err


def test_a_curve_without_the_bias_tells_nothing_of_a_row_with_it():
    content = {"curve": [{"epoch": 0, "score": 0.3, "core_seconds": 5}], "stages": {}, "best_epoch": 0}
    assert tables.seconds_to_reach(content, 0.2) == 5 == tables.seconds_to_best({**content, "repeat_bias": {}})
    assert tables.seconds_to_reach({**content, "repeat_bias": {}}, 0.2) is None
