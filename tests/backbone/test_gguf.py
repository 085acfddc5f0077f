"""A language model out of one GGUF file: what it says is what its folder says."""

import pytest
import torch

from recbole_contrec import UserError
from recbole_contrec.backbone import PretrainedDecoder
from recbole_contrec.backbone.hub import find_model
from tests.helpers.files import STORIES

pytest.importorskip("gguf", reason="needs the gguf package")
pytest.importorskip("accelerate", reason="needs the accelerate package")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from tests.helpers.gguf_files import write_gguf

    path = tmp_path_factory.mktemp("gguf") / "stories.gguf"
    write_gguf(path)
    return path


def test_a_file_is_read_as_the_folder_that_it_was_made_from(file):
    packed, folder = PretrainedDecoder(str(file), lora_rank=2), PretrainedDecoder(str(STORIES), lora_rank=2)
    text = "Once upon a time, there was a little girl named Lily."
    numbers = [model.vocabulary.encode(text, add_special_tokens=False).ids for model in (packed, folder)]
    assert numbers[0] == numbers[1] and packed.end_id == folder.end_id
    words = torch.tensor(numbers[0])
    torch.testing.assert_close(packed(packed.read(words)[None]), folder(folder.read(words)[None]), atol=1e-4, rtol=1e-4)
    assert sum(p.requires_grad for p in packed.parameters()) == sum(p.requires_grad for p in folder.parameters()) > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_positions_stay_exact_in_half_precision(file, dtype):
    """Weights are rounded, as those of a folder are; what turns words by their position is not."""
    packed, folder = (PretrainedDecoder(str(place), dtype=dtype) for place in (file, STORIES))
    vectors = 0.05 * torch.randn(1, 300, packed.hidden_size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(packed(vectors), folder(vectors), atol=1e-4, rtol=1e-4)


def test_texts_are_encoded_by_a_file_too(file):
    from recbole_contrec.item_vectors.text_encoder import TextEncoder

    packed, folder = TextEncoder(str(file), 32), TextEncoder(str(STORIES), 32)
    texts = ["a red ball", "Lily went to the park", ""]
    torch.testing.assert_close(packed(texts), folder(texts), atol=1e-4, rtol=1e-4)
    before = packed.identity
    (file.parent / "notes.txt").write_text("nothing to do with the model")
    assert TextEncoder(str(file), 32).identity == before


def test_a_missing_package_is_named(file, monkeypatch):
    from recbole_contrec import packages

    monkeypatch.setattr(packages, "is_installed", lambda package: package != "gguf")
    with pytest.raises(
        UserError, match=r"stories.gguf: a .gguf file needs gguf, .*pip install 'recbole_contrec\[llm\]'"
    ):
        find_model(str(file))


def test_a_damaged_file_is_refused_in_a_line(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(UserError, match="broken.gguf: its configuration cannot be loaded") as caught:
        PretrainedDecoder(str(path))
    assert len(str(caught.value).splitlines()) == 1
