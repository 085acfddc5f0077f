"""The speed benchmark: its clock, its counts and its tables, and all parts end to end at tiny sizes."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import speed
from benchmarks.lib import measuring, points, released
from benchmarks.lib.flops import count_flops, count_training_flops, matrix_rate
from benchmarks.lib.measuring import TimedBatches, growth_exponents, in_workplace, isolated
from benchmarks.lib.synthetic import SyntheticDataset, random_histories, write_atomic_files
from benchmarks.report.speed import summary
from recbole_contrec.retrieval import CatalogueCrossEntropy
from tests.helpers.files import ROOT
from tests.helpers.options import TINY_CONTREC

SETTINGS = [
    argument[2:]
    for argument in TINY_CONTREC
    if argument.split("=")[0] not in ("--MAX_ITEM_LIST_LENGTH", "--show_progress", "--use_gpu", "--train_batch_size")
]
SMALL = [
    "--rounds=1",
    "--batches=1",
    "--seconds=0",
    "--dataset=tiny",
    "--histories",
    "10",
    "--matrix_sizes",
    "32",
    "--catalogues",
    "50",
    "500",
    "--score_memory=0.1",
    "--ranked_users=20",
    "--items=100",
    "--lengths",
    "5",
    "10",
    "--targets=1000",
    "--users",
    "30",
    "60",
    "--rows=1",
    "--train_batch_size=64",
    "--settings",
    *SETTINGS,
]


@pytest.fixture
def measured(tiny, tmp_path, monkeypatch):
    """A function (*arguments) -> content of the JSON file; in this process, where the libraries are loaded already."""
    monkeypatch.setattr(
        speed, "isolated", lambda function, *arguments, threads: in_workplace(function, arguments, threads)
    )

    def run(*arguments):
        output = tmp_path / "results" / "speed.json"
        speed.main([*SMALL, f"--data_path={tiny}", f"--output={output}", *arguments])
        return json.loads(output.read_text())

    return run


def test_all_parts_end_to_end(measured, tmp_path, capsys):
    result = measured("--models", "SASRec", "ContRec", "--rounds=2")
    printed = capsys.readouterr().out
    assert list(result["parts"]) == list(speed.PARTS)
    assert {"cpu", "threads", "versions", "commit"} <= result["machine"].keys() and result["settings"]["seed"] == 2020
    assert str(tmp_path) not in json.dumps(result) and str(ROOT) not in json.dumps(result)
    assert not (tmp_path / "log_tensorboard").exists() and not list(tmp_path.rglob("*.part"))

    sasrec, contrec = result["parts"]["train"]["rows"]
    assert (sasrec["model"], sasrec["times_faster"]) == ("SASRec", 1)
    assert sasrec["targets_an_epoch"] == contrec["targets_an_epoch"]
    ratios = [base / own for base, own in zip(sasrec["rounds"], contrec["rounds"], strict=True)]
    assert len(ratios) == 2 and contrec["times_faster_range"] == pytest.approx(sorted(ratios), rel=1e-3)
    assert contrec["times_faster"] == pytest.approx(sum(ratios) / 2, rel=1e-3)
    assert contrec["batches_timed"] == [1, 1] and contrec["batches_an_epoch"] > 2
    assert contrec["seconds_before_training"] > 0 == sasrec["seconds_before_training"]

    for row in result["parts"]["ceiling"]["rows"]:
        reached = row["flops_a_target"] * row["targets_a_second"] / 1e9
        assert row["share"] == pytest.approx(reached / row["matrix_gflops"], rel=1e-3)
    ranking = result["parts"]["ranking"]
    assert [(row["method"], row["items"]) for row in ranking["rows"]] == [
        ("full_sort", 50),
        ("top_k", 50),
        ("top_k", 500),
    ]  # 500 items need more than --score_memory
    assert len(ranking["growth"]["top_k"]["seconds"]) == 1 and ranking["growth"]["full_sort"]["seconds"] == []
    assert [row["history"] for row in result["parts"]["history"]["rows"]] == [5, 10]
    users = result["parts"]["users"]["rows"]
    assert [row["users"] for row in users] == [30, 60]
    *seconds, total = users[0]["seconds"].values()
    assert len(seconds) == 5 and total == pytest.approx(sum(seconds), rel=1e-3)
    scheme = result["parts"]["released"]
    ratio = scheme["ours_users_a_second"] / scheme["released_users_a_second"]
    assert scheme["times_faster"] == pytest.approx(ratio, rel=1e-3)

    speed.main([f"--summary={tmp_path / 'results' / 'speed.json'}"])
    assert capsys.readouterr().out == printed == summary(result) + "\n"
    assert f"| ContRec | 10 | {contrec['seconds_an_epoch']:.3g} |" in printed


def test_parts_can_be_chosen_and_a_ratio_needs_its_baseline(measured):
    result = measured("--parts", "train", "--models", "ContRec")
    assert list(result["parts"]) == ["train"]
    assert result["parts"]["train"]["rows"][0]["times_faster"] is None


def test_what_cannot_be_measured_is_said_in_one_line(measured, capsys):
    with pytest.raises(SystemExit, match="2"):
        measured("--parts", "train", "--models", "ContRec", "--train_batch_size=100000")
    assert re.search(r"ContRec has one batch an epoch.* lower --train_batch_size", capsys.readouterr().err)


def test_summary_shows_the_ratios_of_the_file():
    row = {
        "model": "ContRec",
        "history": 50,
        "seconds_an_epoch": 7.91,
        "targets_a_second": 12345.6,
        "train_batch_size": 1024,
        "times_faster": 29.96,
        "times_faster_range": [28.0, 31.0],
        "batches_timed": [4, 7],
        "batches_an_epoch": 95,
        "seconds_before_training": 3.9,
    }
    result = {
        "machine": {
            "cpu": "A CPU",
            "threads": 1,
            "cores": 2,
            "load_at_start": 0.1,
            "commit": "abc",
            "versions": {"torch": "2.0"},
        },
        "settings": {"seed": 7, "settings": []},
        "parts": {"train": {"dataset": "ml-100k", "rows": [row]}},
    }
    table = summary(result)
    assert "| ContRec | 50 | 7.91 | 12,346 | 30 (28 to 31) | 1024 | 4 to 7 of 95 | 3.9 |" in table
    assert "A CPU, 1 thread of 2 cores, load 0.1 at the start; torch 2.0, commit abc, seed 7." in table
    assert summary(json.loads(json.dumps(result))) == table


def test_clock_starts_after_one_batch_and_stops_in_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measuring, "perf_counter", lambda: now[0])

    def train(timed, step_seconds):
        seen = []
        for batch in timed:
            now[0] += step_seconds(batch)
            seen.append(batch)
        return seen

    slow_start = lambda batch: 100.0 if batch == 0 else 2.0  # noqa: E731
    timed = TimedBatches(range(10), lambda batch: 10 * batch, batches=3, seconds=0)
    assert train(timed, slow_start) == [0, 1, 2, 3] and len(timed) == 10
    assert timed.time == (3, 60, 6.0) and timed.time.targets_a_second == 10
    timed = TimedBatches(range(10), lambda batch: 1, batches=1, seconds=9.5)
    assert train(timed, slow_start) == [0, 1, 2, 3, 4, 5]
    timed = TimedBatches(range(4), lambda batch: 1, batches=100, seconds=0)
    assert train(timed, slow_start) == [0, 1, 2, 3] and timed.time.batches == 3


def test_growth_exponents():
    assert growth_exponents([10, 100, 1000], [3, 30, 3000]) == pytest.approx([1, 2])
    assert growth_exponents([1, 4, 16], [5, 10, 10]) == pytest.approx([0.5, 0])
    assert growth_exponents([1, 2], [0, 1]) == [None] and growth_exponents([1], [1]) == []


def test_flops_of_known_products():
    linear = torch.nn.Linear(20, 30)
    rows = torch.randn(7, 20, requires_grad=True)
    assert count_flops(lambda: linear(rows)) == (2 * 7 * 20 * 30, 0)
    assert count_flops(lambda: linear(rows).sum().backward()) == (3 * 2 * 7 * 20 * 30, 0)

    query, items = torch.randn(600, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    target = torch.randint(50, (600,))
    loss = count_flops(lambda: CatalogueCrossEntropy.apply(query, items, target, 0.0).backward())
    assert loss.total == 3 * 2 * 600 * 8 * 64  # the items of whole cache lines

    heads = torch.randn(2, 3, 10, 4, requires_grad=True)  # [B, heads, S, D]
    product = 2 * (2 * 3) * 10 * 10 * 4
    attend = F.scaled_dot_product_attention
    assert count_flops(lambda: attend(heads, heads, heads, is_causal=True)) == (2 * product,) * 2
    assert count_flops(lambda: attend(heads, heads, heads).sum().backward()) == (7 * product,) * 2


def test_flops_of_a_training_step_leave_no_gradient(assembled):
    loaded = assembled("ContRec")
    flops = count_training_flops(loaded.model, next(iter(loaded.data.train)))
    assert flops.total > flops.attention > 0
    assert all(p.grad is None for p in loaded.model.parameters())


def test_matrix_rate_is_the_best(monkeypatch):
    monkeypatch.setattr("benchmarks.lib.flops._best_seconds", lambda size, repeats: {10: 1e-6, 20: 4e-6}[size])
    assert matrix_rate([10, 20]) == pytest.approx((4.0, 20))


def test_isolated_memory_is_not_that_of_the_parent(tmp_path, monkeypatch):
    (tmp_path / "allocation.py").write_text("def allocate(mib):\n    return {'bytes': len(bytes([1]) * (mib << 20))}\n")
    monkeypatch.syspath_prepend(tmp_path)
    from allocation import allocate

    ballast = np.ones(700 * measuring.MIB // 8)
    result = isolated(allocate, 100, threads=1)
    assert result["bytes"] == 100 << 20 and ballast.nbytes < measuring.peak_memory()
    assert 95 < result["peak_mib"] - result["start_mib"] < 200 and result["peak_mib"] < 700


def test_synthetic_data_hold_the_same_histories_in_memory_and_on_disk(workplace):
    histories = random_histories(50, 30, 4, 9, seed=1)
    lengths = np.diff(histories.offsets)
    assert lengths.min() == 4 and lengths.max() == 9 and histories.items.min() >= 1 and histories.items.max() <= 30
    write_atomic_files(workplace / "data", "made", histories)
    config = points.configure(speed.parse([*SMALL]), "ContRec", "made", str(workplace / "data"), 5)
    from recbole_contrec.data.loading import load_data

    data = load_data(config)
    assert data.dataset.user_num == 51 and len(data.train.histories.items) == len(histories.items) - 2 * 50
    batch = next(SyntheticDataset(config, histories, 30).ranking_batches(5, 512))
    borders = zip(histories.offsets, histories.offsets[1:])
    for row, length, (first, end) in zip(batch["item_id_list"], batch["item_length"], borders, strict=True):
        assert row[:length].tolist() == histories.items[first:end][-5:].tolist() and not row[length:].any()


def test_released_scheme_does_all_its_calls(config_of):
    scheme = released.ReleasedScheme(config_of("ContRec"), torch.randn(40, 16), prompt_length=12)
    calls = {"words": [], "denoiser": 0}
    own_keys = scheme.decoder._keys_and_values  # computed for every position that a block reads
    scheme.decoder._keys_and_values = lambda block, hidden: (
        (calls["words"].append(hidden.shape[1]) if block is scheme.decoder.transformer.h[0] else None)
        or own_keys(block, hidden)
    )
    scheme.head.denoiser.register_forward_hook(lambda *_: calls.update(denoiser=calls["denoiser"] + 1))
    scores, seconds = scheme.recommend(torch.randn(12, 16))
    assert calls == {"words": [12] + 63 * [1], "denoiser": 400}
    assert len(scores) == 40 and np.isfinite(scores).all() and seconds.total > 0


def test_cached_writing_equals_reading_everything_again(config_of):
    scheme = released.ReleasedScheme(config_of("ContRec"), torch.randn(40, 16), prompt_length=5)
    prompt = torch.randn(5, 16)
    with torch.no_grad():
        states = scheme.write(prompt)
        words = scheme.decoder.read(scheme.decoder.word_logits(states).argmax(1))
        again = scheme.decoder(torch.cat([prompt, words[:-1]])[None])[0, 4:]
    torch.testing.assert_close(states, again, atol=1e-4, rtol=1e-4)
