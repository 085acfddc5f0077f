"""Where a text encoder lies: a download that broke off, a folder that has moved, a name in the cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.text_encoder import TextEncoder
from recbole_contrec.storage import checkpoint
from tests.helpers.encoders import TEXTS, WITH_ENCODER
from tests.helpers.files import STORIES


def test_a_killed_download_is_finished(encoder, empty_cache, monkeypatch):
    """In the cache is no more than the configuration: what lacks comes by the name, of the same commit."""
    import transformers

    snapshot = empty_cache / "models--owner--model" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(STORIES / "config.json", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    fetched = []

    def fetching(load):
        def from_pretrained(source, revision=None, **options):
            fetched.append((source, revision)) if source == "owner/model" else None
            return load(str(STORIES) if source == "owner/model" else source, **options)

        return from_pretrained

    for loader in (transformers.AutoTokenizer, transformers.AutoModel):
        monkeypatch.setattr(loader, "from_pretrained", fetching(loader.from_pretrained))
    named = TextEncoder("owner/model", 64)
    assert named.identity == "owner/model " + "c" * 40
    torch.testing.assert_close(named(TEXTS), encoder(TEXTS))
    assert fetched == [("owner/model", "c" * 40)] * 2


def test_a_run_goes_on_where_its_encoder_has_moved(run_tiny, copy, workplace, caplog):
    first, arguments = copy(), (*WITH_ENCODER, "--run_name=moved")
    run_tiny("ContRec", *arguments, f"--text_encoder={first}")
    first.rename(workplace / "elsewhere")
    result = run_tiny("ContRec", *arguments, "--text_encoder=elsewhere", "--epochs=2", resume="saved/moved")
    assert result["epochs"] == 2 and result["settings"]["text_encoder"] == str(workplace / "elsewhere")
    (said,) = (record.message for record in caplog.records if "goes on with" in record.message)
    assert "text_encoder" not in said

    other = copy("other")
    (other / "generation_config.json").unlink()  # another encoder, as far as its files tell
    with pytest.raises(UserError, match=r"trained with text_encoder=.*elsewhere, and the files of .*other are others"):
        run_tiny("ContRec", *arguments, f"--text_encoder={other}", "--epochs=3", resume="saved/moved")
    with pytest.raises(UserError, match="trained with random_weights=None"):
        run_tiny("ContRec", *arguments, "--random_weights=text_encoder", "--epochs=3", resume="saved/moved")


def test_a_moved_encoder_of_a_run_that_did_not_note_its_files_is_refused(run_tiny, copy, workplace):
    first, arguments = copy(), (*WITH_ENCODER, "--run_name=moved")
    run_tiny("ContRec", *arguments, f"--text_encoder={first}")
    last = workplace / "saved" / "moved" / "last.safetensors"
    stored = checkpoint.load(last)
    for stage in stored.record["stages"].values():  # as an earlier version has written it
        stage.pop("settings", None)
    kept = {key: value for key, value in stored.record.items() if key not in ("format", "checksum")}
    checkpoint.save(last, stored.tensors, kept)
    with pytest.raises(UserError, match="trained with text_encoder=.*: resume with the same settings"):
        run_tiny("ContRec", *arguments, f"--text_encoder={copy('moved')}", "--epochs=2", resume="saved/moved")


def test_a_name_is_found_in_the_cache(tiny, workplace):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = workplace / "home" / "hub" / "models--owner--stories"
    shutil.copytree(STORIES, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)

    def call(*arguments, **environment):
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "recbole_contrec",
                "vectors",
                "--dataset=tiny",
                "--data_path=data",
                "--output=v.npy",
                "--vector_size=8",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "HF_HOME": str(workplace / "home"), "OMP_NUM_THREADS": "1", **environment},
        )

    done = call("--text_encoder=owner/stories")
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.load("v.npy").shape == (60, 8) and "Retrying" not in done.stderr
    [stage] = Path("saved/stages").glob("item-texts-*")
    done = call("--text_encoder=owner/stories", HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and f"found in {stage}" in done.stdout
    done = call("--text_encoder=owner/other", HF_HUB_OFFLINE="1")
    assert done.returncode == 2 and "HF_HUB_OFFLINE is set" in done.stderr and len(done.stderr.splitlines()) == 1
