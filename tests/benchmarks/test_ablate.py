"""The ablation: every variant is a known one and changes something; its table on known numbers; one end to end."""

import json
import os

import numpy as np
import pytest

from benchmarks import ablate
from benchmarks.lib import significance
from benchmarks.lib.variants import ABLATIONS, SHIPPED, Variant
from benchmarks.report import ablate as ablate_report
from benchmarks.report import rows as report_rows
from tests.helpers.options import TINY_CONTREC

THREE = (Variant("shipped", "as it is"), Variant("worse", "without a part"), Variant("absent", "never run"))


def write_run(folder, name, seed, ranks, valid, **card):
    """A result as a run leaves it, as far as the table reads it."""
    content = {
        "best_valid_score": valid,
        "best_valid_result": {"ndcg@10": valid},
        "test_result": {"ndcg@10": valid / 2},
        "settings": {"repeat_bias": True, "hidden_dropout_prob": 0.2, "MAX_ITEM_LIST_LENGTH": 50},
        "curve": [{"epoch": epoch, "core_seconds": 10.0 * (epoch + 1), "score": valid} for epoch in range(2)],
        "card": {**dict.fromkeys(report_rows.SHARED), "dataset": "tiny", "seed": seed, **card},
    }
    path = folder / name / f"seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    np.savez(path.with_suffix(".npz"), user=np.array(list("abcdef")), rank=np.asarray(ranks), ties=np.zeros(6, int))


@pytest.fixture
def folder(tmp_path):
    """Two seeds of the shipped settings, one of them of a variant."""
    write_run(tmp_path, "shipped", 1, [1, 1, 2, 1, 3, 1], 0.30)
    write_run(tmp_path, "shipped", 2, [50] * 6, 0.20)
    write_run(tmp_path, "worse", 1, [9, 2, 20, 2, 5, 1], 0.28)
    return tmp_path


# variants


@pytest.mark.parametrize(
    "model, variant",
    [
        pytest.param(model, variant, id=f"{model} {variant.name}")
        for model, variants in ABLATIONS.items()
        for variant in variants
    ],
)
def test_every_variant_is_accepted_and_changes_what_it_names(config_of, model, variant):
    model = variant.model or model
    config, default = config_of(model, *ablate.settings_of(variant, ())), config_of(model)
    keys = [setting.partition("=")[0] for setting in variant.settings]
    assert [key for key in keys if config[key] == default[key]] == []
    assert variant.meaning and variant.name == variant.name.replace("/", "").strip()


@pytest.mark.parametrize("variants", ABLATIONS.values(), ids=ABLATIONS)
def test_every_variant_differs_from_every_other(variants):
    assert len({variant.name for variant in variants}) == len(variants)
    assert len({(variant.model, variant.settings) for variant in variants}) == len(variants)
    assert variants[0] is SHIPPED and not SHIPPED.settings


def test_a_variant_has_the_last_word_and_a_control_takes_what_it_knows():
    further = ("--vector_size=16", "--epochs=2", "--repeat_bias=False", "--vector_szie=1")
    assert ablate.settings_of(SHIPPED, further) == further
    control = next(variant for variant in ABLATIONS["ContRec"] if variant.name == "SASRecAll-repeat-bias")
    assert ablate.settings_of(control, further) == ("--epochs=2", "--repeat_bias=False", "--repeat_bias=True")


def test_variants_are_listed_and_chosen_by_name(capsys):
    assert ablate.main(["--model=DeftRec", "--dataset=tiny", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ABLATIONS["DeftRec"])
    given = ablate._parse(["--model=ContRec", "--dataset=tiny", "--variants", "user-tokens-0"])
    assert [variant.name for variant in given.variants] == ["shipped", "user-tokens-0"]
    for arguments in (
        [],
        ["--dataset=tiny"],
        ["--model=SASRec", "--dataset=tiny"],
        ["--model=ContRec", "--dataset=tiny", "--variants", "negatives-off"],
        ["--model=ContRec", "--dataset=tiny", "--epochs", "3"],
    ):
        with pytest.raises(SystemExit):
            ablate.main(arguments)


# table and picture


def test_differences_are_over_common_seeds(folder):
    shipped, worse = ablate_report.ordered_rows(folder, THREE)
    found = ablate_report.difference(worse, shipped)
    users = [significance.ndcg(np.array(ranks), 0) for ranks in ([9, 2, 20, 2, 5, 1], [1, 1, 2, 1, 3, 1])]
    assert found.valid == pytest.approx(-0.02) and found.test == significance.compare(*users)
    write_run(folder, "absent", 3, [1] * 6, 0.5)
    assert ablate_report.difference(ablate_report.ordered_rows(folder, THREE)[-1], shipped) is None


def test_the_table_in_full(folder):
    found = ablate_report.ordered_rows(folder, THREE)
    change = ablate_report.difference(found[1], found[0]).test
    lines = ablate_report.table(found, {"shipped": "as it is", "worse": "without a part"}).splitlines()
    assert lines[2:] == [
        "| shipped | as it is | 2 | **.2500** ± .0707 |  | .1250 |  |  | 10.0 |",
        f"| worse | without a part | 1 | **.2800** | -0.0200 | .1400 | {change.difference:+.4f} | "
        f"{change.low:+.4f} to {change.high:+.4f} | 10.0 |",
        "",
        "Method of shipped: SASRec, loss at every position, repeat bias.",
    ]


def test_the_method_of_a_variant_is_told_where_it_is_another_one(folder):
    path = folder / "worse" / "seed1.json"
    content = json.loads(path.read_text())
    content["settings"]["repeat_bias"] = False
    path.write_text(json.dumps(content))
    meanings = {"shipped": "as it is", "worse": "without a part"}
    assert ablate_report.table(ablate_report.ordered_rows(folder, THREE), meanings).endswith(
        "\n\nMethod of shipped: SASRec, loss at every position, repeat bias; of worse: SASRec, loss at every position."
    )


def test_another_protocol_is_marked(folder):
    write_run(folder, "worse", 1, [1] * 6, 0.5, seen_items_masked=True)
    text = ablate_report.report(folder, THREE)
    assert "| worse † |" in text and "worse differs from shipped in seen_items_masked" in text


def test_the_picture_shows_validation_as_bars_and_test_as_points(folder, monkeypatch):
    drawn, draw_bars = [], ablate_report._draw_bars

    def draw_and_keep(axes, changes):
        draw_bars(axes, changes)
        bars, points = axes.patches, axes.containers[1].lines[0]
        drawn.extend([[bar.get_width() for bar in bars], list(points.get_xdata())])

    monkeypatch.setattr(ablate_report, "_draw_bars", draw_and_keep)
    assert ablate_report.draw(folder, THREE).read_bytes().startswith(b"\x89PNG")
    change = ablate_report.difference(*ablate_report.ordered_rows(folder, THREE)[::-1])
    assert drawn == [[pytest.approx(-0.02)], [change.test.difference]]


def test_without_the_shipped_settings_there_is_no_table(tmp_path):
    write_run(tmp_path, "worse", 1, [1] * 6, 0.5)
    with pytest.raises(ValueError, match="no finished run of shipped"):
        ablate_report.report(tmp_path, THREE)


# end to end


def test_from_runs_to_table_and_picture(tiny, workplace, monkeypatch, capsys, executed):
    """Three variants, each run, and one that fails."""
    names, vectors = executed

    def run_ablation(*arguments):
        return ablate.main(
            [
                "--model=ContRec",
                "--dataset=tiny",
                f"--data_path={tiny}",
                f"--output={workplace / 'results'}",
                "--seeds=1",
                *TINY_CONTREC,
                *arguments,
            ]
        )

    before = set(os.listdir(workplace))
    assert run_ablation("--variants", "SASRecAll", "vectors-random") == 0
    assert names == ["shipped", "vectors-random", "SASRecAll"] and set(os.listdir(workplace)) - before == {"results"}
    assert list(vectors) == ["vectors-random"] and vectors["vectors-random"].shape == (60, 16)
    folder = workplace / "results" / "tiny-ablation-ContRec"
    stored = json.loads((folder / "vectors-random" / "seed2020.json").read_text())
    assert stored["settings"]["item_vectors"] == "random_vectors.npy" and str(workplace) not in json.dumps(stored)
    assert (folder / "README.md").read_text() == ablate_report.report(folder, ABLATIONS["ContRec"])
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "| SASRecAll | control" in capsys.readouterr().out

    assert run_ablation("--variants", "SASRecAll", "vectors-random") == 0 and len(names) == 3
    assert run_ablation("--tables-only") == 0 and len(names) == 3

    def fails(run, *_):
        raise RuntimeError(f"{run} failed")

    monkeypatch.setattr("benchmarks.lib.running.execute", fails)
    assert run_ablation("--variants", "user-tokens-0") == 1
    assert "user-tokens-0 on tiny, seed 2020 failed" in capsys.readouterr().err
    assert run_ablation("--seeds=2", "--variants", "vectors-random", "--dropuot=0.1") == 2
    assert "unknown setting dropuot" in capsys.readouterr().err
