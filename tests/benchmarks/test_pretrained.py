"""What pretrained weights are worth: variants that are settings, groups of targets, differences on known numbers."""

import json

import numpy as np
import pytest

from benchmarks import pretrained
from benchmarks.lib import significance
from benchmarks.lib.pretrained_variants import VARIANTS, Variant
from benchmarks.report import pretrained as report
from tests.benchmarks.test_ablate import write_run
from tests.helpers.files import STORIES
from tests.helpers.options import TINY_CONTREC

GIVEN = {"text_encoder": str(STORIES), "llm": str(STORIES)}
TWO = (Variant("with", "weights", (), "without"), Variant("without", "none"))


@pytest.fixture
def folder(tmp_path):
    """Two seeds of a variant and of its control, and six users of whom two have cold targets."""
    for seed in (1, 2):
        write_run(tmp_path, "with", seed, [1, 1, 2, 1, 3, 1], 0.30)
        write_run(tmp_path, "without", seed, [1, 2, 2, 1, 3, 99], 0.20)
    np.savez(
        tmp_path / report.GROUPS_FILE,
        user=np.array(list("fedcba")),
        interactions=np.array([0, 9, 9, 9, 5, 9]),
        history=np.array([9, 2, 9, 9, 9, 9]),
    )
    return tmp_path


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_is_accepted_and_compared_with_another_one(config_of, variant):
    arguments = variant.arguments(GIVEN)
    config = config_of(variant.model, *arguments)
    assert all(str(config[key.partition("=")[0]]) for key in variant.settings)
    assert not any("{" in argument for argument in arguments)
    assert variant.control is None or variant.control in {other.name for other in VARIANTS} - {variant.name}


def test_variants_differ_and_need_what_they_read():
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert len({(variant.model, variant.settings) for variant in VARIANTS}) == len(VARIANTS)
    without = {variant.name for variant in VARIANTS if variant.arguments({}) is not None}
    assert "ContRec-tfidf" in without and "ContRec-encoder" not in without
    assert Variant("hub", "", ("llm={llm}",)).arguments({"llm": "owner/name"}) == ("--llm=owner/name",)


def test_groups_and_differences_of_known_ranks(folder):
    facts = dict(np.load(folder / report.GROUPS_FILE))
    rows = {row.name: row for row in report.rows(folder)}
    found = {each.group: each for each in report.against(rows["with"], rows["without"], facts)}
    assert {name: each.targets for name, each in found.items()} == {
        "all": 6,
        "cold": 2,
        "warm": 4,
        "short history": 1,
    }
    cold = [significance.ndcg(np.array(ranks), np.zeros(2)) for ranks in ([1, 1], [99, 2])]  # of users f and b
    assert found["cold"].gains == significance.compare(*cold)
    assert found["cold"].control == pytest.approx(cold[1].mean())
    assert found["cold"].hits.difference == pytest.approx(0.5)
    assert found["warm"].gains.difference == 0
    text = report.report(folder, TWO)
    assert "| with | without | cold | +0.6845 |" in text and "all (6)" in text
    assert "cold (2)" in text and "1.0000 ± .0000 / 1.0000 ± .0000" in text


def test_other_seeds_have_no_difference(folder):
    for path in folder.glob("without/seed*"):
        path.rename(path.with_name(path.name.replace("seed", "seed9")))
    for path in folder.glob("without/*.json"):
        content = json.loads(path.read_text())
        content["card"]["seed"] = int(path.stem.removeprefix("seed"))
        path.write_text(json.dumps(content))
    rows = {row.name: row for row in report.rows(folder)}
    assert report.against(rows["with"], rows["without"], dict(np.load(folder / report.GROUPS_FILE))) == []
    assert "against" not in report.report(folder, TWO)


def test_runs_share_their_stages_and_leave_tables(tiny, workplace, executed, capsys):
    told = [
        "--dataset=tiny",
        f"--data_path={tiny}",
        f"--text_encoder={STORIES}",
        *[argument for argument in TINY_CONTREC if not argument.startswith("--data_path")],
        f"--output={workplace / 'results'}",
        "--variants",
        "ContRec-similar",
        "ContRec-similar-random",
    ]
    assert pretrained.main(told) == 0
    folder = workplace / "results" / "tiny-pretrained"
    assert len(list((folder / pretrained.STAGES).glob("item-texts-*"))) == 2  # the trained encoder, and the random one
    assert "ContRec-similar | ContRec-similar-random | all" in (folder / "README.md").read_text()
    stored = json.loads((folder / "ContRec-similar" / "seed2020.json").read_text())
    assert stored["settings"]["text_encoder"] == STORIES.name
    facts = np.load(folder / report.GROUPS_FILE)
    assert len(facts["user"]) == stored["card"]["targets"]["test"] and facts["history"].min() > 0
    names = executed[0]
    assert pretrained.main(told) == 0 and names == ["ContRec-similar", "ContRec-similar-random"]
    capsys.readouterr()
    for wrong in (["--variants", "nobody"], ["--epochs", "3"]):
        with pytest.raises(SystemExit):
            pretrained.main(["--dataset=tiny", *wrong])
