"""What the scripts over several runs reuse, what they refuse to mix, and what they do not understand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import ablate, answers, backbone, beam, compare, dial, grid, refine, search, speed, unseen
from benchmarks.lib import asked, runs
from benchmarks.lib.measuring import temporary_workplace
from benchmarks.lib.runs import Run
from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config
from tests.helpers.options import TINY

SETTINGS = (*(argument for argument in TINY if "show_progress" not in argument), "--hidden_size=16")


@pytest.fixture
def one(tiny, workplace):
    """A finished run, as one of this version leaves it, and a function that changes its result."""
    run = Run("SASRecAll", "tiny", 2020, workplace / "results" / "tiny", settings=SETTINGS)
    wanted = asked.asked_for(run, str(tiny))
    content = {
        "card": {"dataset": "tiny", "seed": 2020, "users": 40, "items": 60, "interactions": 553},
        "data": wanted.data,
        "settings": {key: value for key, value in wanted.settings.items() if key not in runs.PATHS},
    }
    lines = (tiny / "tiny" / "tiny.inter").read_text().splitlines()[1:]
    content["card"].update(interactions=len(lines), items=len({line.split("\t")[1] for line in lines}))
    run.result.parent.mkdir(parents=True)

    def change(**changes):
        for key, value in changes.items():
            content[key] = {**content[key], **value} if isinstance(value, dict) else value
        run.result.write_text(json.dumps(content))
        return content

    change()
    return run, change


def stops(run, tiny):
    """The message of a run that is there otherwise, and that ``--again`` takes it."""
    with pytest.raises(UserError) as error:
        asked.missing([run], str(tiny))
    assert asked.missing([run], str(tiny), again=True) == [run]
    return str(error.value)


def test_a_run_is_reused_where_settings_data_and_seed_are_the_same(one, tiny):
    run, change = one
    assert asked.missing([run], str(tiny)) == []
    assert asked.missing([replace(run, settings=(*SETTINGS, "--show_progress=True", "--state=ERROR"))], str(tiny)) == []
    assert asked.missing([replace(run, seed=2021)], str(tiny)) == [replace(run, seed=2021)]
    assert "hidden_size=16, not 8" in stops(replace(run, settings=(*SETTINGS, "--hidden_size=8")), tiny)
    change(settings={"seed": 7})
    assert "seed=7, not 2020" in stops(run, tiny)


def test_a_setting_that_has_come_since_counts_only_where_it_is_asked_for(one, tiny):
    run, change = one
    content = change()
    del content["settings"]["mask_seen"], content["settings"]["hidden_size"]
    change()
    assert "a version without hidden_size, not hidden_size=16;" not in stops(run, tiny) and "mask_seen" not in stops(
        run, tiny
    )
    plain = replace(run, settings=tuple(argument for argument in SETTINGS if "hidden_size" not in argument))
    assert asked.missing([plain], str(tiny)) == []


def test_a_setting_whose_default_does_something_is_missed_where_it_was_not_there_yet(one, tiny):
    run, change = one
    content = change()
    del content["settings"]["text_similarity"]  # 0 by itself, as before it came
    change()
    assert asked.missing([run], str(tiny)) == []
    texts = replace(run, settings=(*SETTINGS, "--text_similarity=~"))
    assert "a version without text_similarity, not text_similarity=~" in stops(texts, tiny)
    by_default = Run("ContRec", "tiny", 2020, run.folder, settings=SETTINGS)
    by_default.result.parent.mkdir(parents=True)
    by_default.result.write_text(json.dumps(content))
    assert "a version without text_similarity, not text_similarity=~" in stops(by_default, tiny)


def test_other_data_are_noticed_by_their_files_or_by_what_the_card_counts(one, tiny):
    run, change = one
    inter = tiny / "tiny" / "tiny.inter"
    text = inter.read_text()
    inter.write_text(text.replace("\t5\t", "\t4\t", 1))
    assert "another tiny.inter" in stops(run, tiny)
    content = change()
    del content["data"]  # an earlier version
    change()
    assert asked.missing([run], str(tiny)) == []
    change(card={"interactions": content["card"]["interactions"] + 1})
    assert "interactions, not" in stops(run, tiny)


def test_yaml_files_of_the_working_directory_count_where_a_run_works_as_well(tiny, workplace, monkeypatch):
    model = workplace / "properties" / "model" / "MyRec.yaml"
    model.parent.mkdir(parents=True)
    model.write_text("extends: SASRec\nhidden_size: 8\n")
    found = []

    def config():
        found.append(Config("MyRec", "tiny", arguments=[f"--data_path={tiny}"])["hidden_size"])

    def follow(command, work, *_):
        with monkeypatch.context() as there:
            there.chdir(work)
            config()
        return 1, ""

    monkeypatch.setattr(runs, "follow", follow)
    with pytest.raises(RuntimeError):
        runs.execute(Run("MyRec", "tiny", 2020, workplace / "results"), str(tiny))
    with temporary_workplace():
        config()
    assert found == [8, 8] and model.is_file() and not (workplace / "results").exists()


def test_damaged_and_misplaced_results_are_named(one, tiny):
    run, change = one
    assert list(runs.load(run.folder)) == ["SASRecAll"]
    for text in ("{", "[]", '{"card": 3}', '{"card": {}}', "\udcff"):
        run.result.write_bytes(text.encode(errors="surrogateescape"))
        for look in (lambda: runs.load(run.folder), lambda: asked.missing([run], str(tiny))):
            with pytest.raises(UserError, match="seed2020.json is damaged, or no result of a run"):
                look()
    change()
    for damaged in (b"", b"PK\x03\x04", b"nothing"):
        run.result.with_suffix(".npz").write_bytes(damaged)
        with pytest.raises(UserError, match="seed2020.npz is damaged"):
            runs.load(run.folder)
    np.savez(run.result.with_suffix(".npz"), user=np.array(["a"]), rank=np.ones(2), ties=np.ones(1))
    with pytest.raises(UserError, match="seed2020.npz is damaged"):
        runs.load(run.folder)
    run.result.with_suffix(".npz").unlink()
    run.result.with_name("seed2021.json").write_text(run.result.read_text())
    with pytest.raises(UserError, match="seed2021.json is a run of seed 2020"):
        runs.load(run.folder)
    run.result.with_name("seed2021.json").unlink()
    (run.folder / "other").mkdir()
    content = json.loads(run.result.read_text())
    (run.folder / "other" / "seed2020.json").write_text(
        json.dumps({**content, "card": {**content["card"], "dataset": "ml-1m"}})
    )
    with pytest.raises(UserError, match="is a run on ml-1m among those on tiny"):
        runs.load(run.folder)


MAINS = {
    "compare": (compare.main, ("--models", "SASRecAll")),
    "ablate": (ablate.main, ("--model=ContRec",)),
    "grid": (grid.main, ("--model=SASRec",)),
    "refine": (refine.main, ()),
    "unseen": (unseen.main, ("--hold=users",)),
    "dial": (dial.main, ()),
    "answers": (answers.main, ("--answer_weight=0.1",)),
    "beam": (beam.main, ()),
    "search": (search.main, ()),
    "speed": (speed.main, ()),
    "backbone": (backbone.main, ()),
}
SEVERAL = ("compare", "ablate", "grid", "refine", "unseen")
WRONG = [(name, [argument]) for name in SEVERAL for argument in ("--seeds=0", "--seeds=few", "--dataset=../tiny")]
WRONG += [(name, ["--dataset=nosuch"]) for name in MAINS if name not in ("speed", "backbone")]
WRONG += [(name, ["--dropuot=0.1"]) for name in ("compare", "ablate", "refine", "unseen", "dial", "answers", "beam")]
WRONG += [
    ("compare", ["--models", "NoSuch"]),
    ("compare", ["--models", "../x"]),
    ("compare", ["--dropout=0.1", "--dropout=0.2"]),
    ("compare", ["--output=file"]),
    ("compare", ["--eval_args={'mode':'uni20'}"]),  # every run is tested without seen items as well
    ("compare", ["--models", "SASRec", "--eval_args={'split':{'GTS':['90%','80%']}}"]),
    ("unseen", ["--mask_seen=True"]),  # its table ranks in its own way
    ("dial", ["--steps", "x"]),
    ("dial", ["--model=NoSuch"]),
    ("search", ["--rounds=0"]),
    ("speed", ["--rounds=x"]),
    ("speed", ["--rows"]),
    ("backbone", ["--rows=0"]),
    ("answers", ["--text_weight", "nan"]),
]


@pytest.mark.parametrize(
    "name, arguments", WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_what_is_not_understood_is_told_and_nothing_is_written(tiny, workplace, capsys, name, arguments):
    main, own = MAINS[name]
    (workplace / "file").write_text("")
    (workplace / "grid.yaml").write_text("- {dropuot: 0.1}\n- {dropuot: 0.2}\n")
    given = [f"--data_path={tiny}", *([] if name == "speed" else ["--dataset=tiny"]), *own]
    given = [
        argument
        for argument in given
        if "=" not in argument or argument.partition("=")[0] not in {each.partition("=")[0] for each in arguments}
    ]
    before = sorted(workplace.rglob("*"))
    try:
        code = main([*given, *arguments])
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") <= 2 and error.startswith("error: ") and "Traceback" not in error, error
    assert sorted(workplace.rglob("*")) == before
