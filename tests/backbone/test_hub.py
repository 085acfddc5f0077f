"""Models by name: folders, the cache of Hugging Face, and what it refuses."""

import json
import shutil

import pytest

from recbole_contrec import UserError
from recbole_contrec.backbone.hub import find_model
from tests.helpers.files import STORIES


def no_address(*_, **__):
    import socket

    raise socket.gaierror(-2, "Name or service not known")


def test_names_without_a_network(empty_cache, monkeypatch, capfd, caplog):
    from huggingface_hub import constants

    monkeypatch.setattr("socket.getaddrinfo", no_address)
    for offline, why in ((False, "Hugging Face cannot be reached"), (True, "HF_HUB_OFFLINE is set")):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        caplog.clear(), caplog.set_level("INFO")
        with pytest.raises(UserError, match=why) as caught:
            find_model("owner/model")
        assert "owner/model: there is no such folder" in str(caught.value) and "HF_HOME" in str(caught.value)
        assert str(empty_cache) in str(caught.value) and len(str(caught.value).splitlines()) == 1
        assert ("fetching it" in caplog.text) != offline
    assert "Retrying" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["", "./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "white space"])
def test_names_that_are_none(empty_cache, name):
    with pytest.raises(UserError, match="there is no such folder, and models of Hugging Face are named"):
        find_model(name)


@pytest.mark.parametrize(
    "error, message",
    [
        ("RepositoryNotFoundError", "knows no such model or keeps it behind a login"),
        ("GatedRepoError", "accept its terms at https://huggingface.co/owner/model, then run hf auth login"),
        ("EntryNotFoundError", "has no config.json"),
        ("HfHubHTTPError", "HfHubHTTPError|Refusal"),
    ],
)
def test_names_that_hugging_face_refuses(empty_cache, monkeypatch, error, message):
    import huggingface_hub
    from huggingface_hub import errors

    class Refusal(getattr(errors, error)):
        def __init__(self):
            pass

    def refuse(name, file, local_files_only=False):
        raise errors.LocalEntryNotFoundError("not here") if local_files_only else Refusal()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=message):
        find_model("owner/model")


@pytest.mark.parametrize("left_out", ["config.json", "*.safetensors"])
def test_folders_without_a_model(tmp_path, left_out):
    shutil.copytree(STORIES, tmp_path / "x", ignore=shutil.ignore_patterns(left_out))
    with pytest.raises(UserError, match="x: the folder holds no transformers model"):
        find_model(str(tmp_path / "x"))


def test_a_file_is_no_folder():
    with pytest.raises(UserError, match="it is a file and no .gguf; name the folder that it lies in"):
        find_model(str(STORIES / "model.safetensors"))


def test_a_language_model_in_the_cache_needs_no_network_and_keeps_its_name(empty_cache, monkeypatch, tmp_path):
    from recbole_contrec.backbone import PretrainedDecoder

    snapshot = empty_cache / "models--owner--model" / "snapshots" / ("c" * 40)
    shutil.copytree(STORIES, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address) or no_address())
    assert find_model("owner/model") == ("owner/model", snapshot, "c" * 40, None)
    asked.clear()  # once a process huggingface_hub looks for something of its own
    decoder = PretrainedDecoder("owner/model", lora_rank=2)
    assert not asked
    decoder.exports()["adapter"](tmp_path / "adapter")
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "owner/model"
    )
