"""Every run has a folder of its own, what it writes can be written, and a failed start leaves nothing."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recbole_contrec.errors import UserError
from recbole_contrec.files import check_file, check_folder, check_room, clear_parts, part_of, write_whole
from recbole_contrec.storage import folders, lock


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


@pytest.fixture
def let_go():
    yield
    for folder in [*lock._held]:
        lock.release(folder)


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


# folders of runs


def test_runs_of_the_same_second_get_different_folders(tmp_path, let_go):
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda _: folders.claim(tmp_path / "saved", None, "run"), range(8)))
    assert len({*claimed}) == 8 and sorted(path.name for path in claimed)[:3] == ["run", "run-2", "run-3"]


CLAIM = """
import sys, time
from pathlib import Path
from recbole_contrec.errors import UserError
from recbole_contrec.storage import folders
print("ready", flush=True)
sys.stdin.readline()
try:
    print(folders.claim(Path("saved"), sys.argv[1] or None, "run").name, flush=True)
except UserError as error:
    print("refused:", error, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("name, outcome", [("", ["run", "run-2", "run-3"]), ("mine", ["mine", "refused:", "refused:"])])
@pytest.mark.parametrize("left", [False, True])
def test_processes_that_start_at_once(workplace, name, outcome, left):
    if left:  # by a process that was killed before its first checkpoint
        Path("saved", name or "run").mkdir(parents=True)
        Path("saved", name or "run", f"best.safetensors.{dead_process()}.part").write_text("half")
    children = [
        subprocess.Popen([sys.executable, "-c", CLAIM, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 3
    for child in children:
        print(file=child.stdin, flush=True)
    said = [child.stdout.readline().split()[0] for child in children]
    for child in children:
        child.communicate("\n")
    assert sorted(said) == outcome
    assert not any(Path("saved").rglob("*.part"))


def test_a_run_does_not_write_over_another(tmp_path, let_go):
    folder = folders.claim(tmp_path, "mine", "run")
    with pytest.raises(UserError, match="--run_name=mine: .*mine is there already.*choose another name, or remove it"):
        folders.claim(tmp_path, "mine", "run")
    (tmp_path / "ended").mkdir()
    (tmp_path / "ended" / "last.safetensors").write_text("x")
    with pytest.raises(UserError, match="go on with it by --resume=.*ended, or remove it"):
        folders.claim(tmp_path, "ended", "run")
    folders.release(folder)
    assert folders.claim(tmp_path / "saved", "mine", "run").is_dir()
    (tmp_path / "saved" / "mine" / "best.safetensors").write_text("x")
    folders.release(tmp_path / "saved" / "mine")
    with pytest.raises(UserError, match="is there already"):
        folders.claim(tmp_path / "saved", "mine", "run")
    (tmp_path / "saved" / "file").write_text("")
    with pytest.raises(UserError, match="is there already"):
        folders.claim(tmp_path / "saved", "file", "run")


def test_a_folder_in_which_nothing_was_saved_goes(tmp_path):
    folders.release(folders.claim(tmp_path / "saved", None, "run"))
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        ".",
        "",
        " ",
        "/tmp/x",
        "a/b",
        "a\\b",
        "C:x",
        "x\0y",
        "x\ny",
        "stages",
        "Stages",
        "NUL",
        "con.txt",
        "x" * 300,
        "ü" * 200,
        "\ud800",
        "...",
    ],
)
def test_names_that_leave_the_folder_or_cannot_be(tmp_path, name):
    with pytest.raises(UserError, match="--run_name"):
        folders.claim(tmp_path / "saved", name, "run")
    assert everything_below(tmp_path) == []


# parts


def test_parts_of_dead_processes_are_cleared_and_no_others(tmp_path):
    dead = dead_process()
    host = part_of(Path("x")).name.split("@")[1].removesuffix(".part")
    for name in (
        f"a.safetensors.{dead}.part",
        f"b.{dead}@{host}.part",
        f"c.{os.getpid()}.part",
        f"d.{dead}@elsewhere.part",
        "e.zip.part",
    ):
        (tmp_path / name).write_text("")
    (tmp_path / f"adapter.{dead}@{host}.part").mkdir()
    (tmp_path / f"adapter.{dead}@{host}.part" / "x").write_text("")
    part_of(tmp_path / "own").write_text("")
    clear_parts(tmp_path)
    assert everything_below(tmp_path) == sorted(
        [f"c.{os.getpid()}.part", f"d.{dead}@elsewhere.part", "e.zip.part", part_of(Path("own")).name]
    )


def test_a_link_stays_a_link_and_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    write_whole(tmp_path / "link", lambda part: part.write_text("new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").read_text() == "new"
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "there", lambda part: part.write_text(str(1 / 0)))
    assert (tmp_path / "there").read_text() == "new" and everything_below(tmp_path) == ["link", "there"]


# places


@pytest.mark.parametrize(
    "path, why",
    [
        ("folder", "it is a folder"),
        ("folder/", "names no file"),
        ("", "names no file"),
        ("..", "names no file"),
        ("file/x.json", "is no folder"),
        ("file/a/b.json", "is no folder"),
        ("x\0.json", "NUL"),
        ("~/x.json", "home folder"),
        ("x" * 300, "too long"),
        ("a/" + "x" * 240 + ".json", "too long"),
        ("a/" * 3000 + "x.json", "too long"),
        ("lost/x.json", "is no folder"),
        ("/dev/null", "device"),
        ("/proc/x.json", "cannot be written"),
        ("\ud800.json", "characters"),
    ],
)
def test_files_that_cannot_be_written(workplace, path, why):
    Path("folder").mkdir()
    Path("file").write_text("")
    Path("lost").symlink_to("nowhere")
    with pytest.raises(UserError) as caught:
        check_file(path, "--output")
    assert (
        why in str(caught.value)
        and str(caught.value).endswith("; choose another --output")
        and len(str(caught.value)) < 400
    )
    assert everything_below(workplace) == ["file", "folder", "lost"]


def test_folders_above_a_file_are_there_or_made(workplace):
    check_file("a/x.csv", "--output")
    with pytest.raises(UserError, match="there is no folder a; choose another --output"):
        check_file("a/x.csv", "--output", makes_folders=False)
    check_file("x.csv", "--output", makes_folders=False)


def test_files_and_folders_that_can_be_written(workplace):
    Path("folder").mkdir()
    Path("file").write_text("x")
    for path in ("new.json", "file", "folder/new.json", "a/b/c.json", "./x", workplace / "y", "~x.json"[1:]):
        check_file(path, "--output")
    for path in ("folder", "a/b", "a/b/", ".", workplace):
        check_folder(path, "--checkpoint_dir")
    assert everything_below(workplace) == ["file", "folder"] and Path("file").read_text() == "x"


@pytest.mark.parametrize("path", ["", "file", "file/x", "x\0", "~/x", "x" * 300])
def test_folders_that_cannot_be(workplace, path):
    Path("file").write_text("")
    with pytest.raises(UserError, match="choose another --checkpoint_dir"):
        check_folder(path, "--checkpoint_dir")


def test_no_room(tmp_path):
    check_room(tmp_path / "a", 1)
    with pytest.raises(UserError, match="no space left for checkpoints.*--checkpoint_dir"):
        check_room(tmp_path / "a" / "b", 2**80)


# runs


def refused(run_tiny, workplace, *arguments, **options):
    """The error of a run that leaves nothing."""
    before = everything_below(workplace)
    with pytest.raises(UserError) as caught:
        run_tiny("SASRec", *arguments, **options)
    assert everything_below(workplace) == before and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_written_is_refused_before_training(run_tiny, workplace, monkeypatch):
    from recbole_contrec.training.trainer import RunTrainer

    monkeypatch.setattr(RunTrainer, "_fit", lambda *_: pytest.fail("it trains"))
    Path("folder").mkdir()
    Path("file").write_text("")
    for argument, why in (
        ("--output=folder", "it is a folder"),
        ("--output=file/x", "no folder"),
        ("--output=", "names no file"),
        ("--checkpoint_dir=file", "no folder"),
        ("--checkpoint_dir=", "names no folder"),
        ("--run_name=../x", "holds no /"),
        ("--run_name=" + "x" * 300, "too long"),
        ("--run_name=stages", "reserved"),
        ("--log_wandb=True", "pip install 'recbole_contrec[wandb]'"),
    ):
        assert why in refused(run_tiny, workplace, argument)
    for name in ("log", "log_tensorboard"):
        Path(name).write_text("")
        assert f"/{name} is no folder; choose another working directory" in refused(run_tiny, workplace)
        Path(name).unlink()


def test_a_start_that_fails_leaves_nothing(run_tiny, workplace, monkeypatch):
    from recbole_contrec.training.trainer import RunTrainer

    def fails(*_):
        raise UserError("no stages today")

    monkeypatch.setattr(RunTrainer, "run_stages", fails)
    assert refused(run_tiny, workplace) == "no stages today"
    assert refused(run_tiny, workplace, "--run_name=mine", "--checkpoint_dir=new/place") == "no stages today"


def test_the_best_model_of_another_run_is_not_tested(run_tiny, monkeypatch):
    """Whoever writes over best.safetensors while a run trains does not become its result."""
    from recbole_contrec.training.trainer import RunTrainer

    first = run_tiny("SASRec", "--run_name=first", "--epochs=1")
    with pytest.raises(UserError, match="is there already"):
        run_tiny("SASRec", "--run_name=first", "--epochs=1")
    whole = RunTrainer._fit

    def overwritten(self, *arguments):
        result = whole(self, *arguments)
        Path(self.saved_model_file).write_bytes(Path(first["checkpoint"]).read_bytes())
        return result

    monkeypatch.setattr(RunTrainer, "_fit", overwritten)
    with pytest.raises(UserError, match="another run has written over it"):
        run_tiny("SASRec", "--run_name=second", "--epochs=1")


def test_two_runs_in_the_same_second(run_tiny, monkeypatch):
    for module in ("recbole_contrec.training.keeping", "recbole.utils.logger"):
        monkeypatch.setattr(f"{module}.get_local_time", lambda: "now")
    results = [run_tiny("SASRec", "--epochs=1", f"--learning_rate={rate}") for rate in (0.03, 0.0002)]
    assert [Path(result["checkpoint"]).parent.name for result in results] == [
        "SASRec-tiny-now-seed2020",
        "SASRec-tiny-now-seed2020-2",
    ]
    assert results[0]["test_result"] != results[1]["test_result"] and len(list(Path("log").rglob("*.log"))) == 2
