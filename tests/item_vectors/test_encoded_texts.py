"""What becomes of encoded texts: the stage that reads them, item vectors, whitening, and the runs that use them."""

import shutil

import pytest
import torch

from recbole_contrec import load_data_and_model, recommend
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.item_vectors.sources import (
    check_source,
    principal_components,
    user_and_item_vectors,
    vector_stages,
)
from tests.helpers.encoders import WITH_ENCODER
from tests.helpers.files import STORIES


def test_another_encoder_is_another_stage(run_tiny, copy):
    def found(*arguments):
        stages = run_tiny("ContRec", *WITH_ENCODER, *arguments)["stages"]
        return {name: stage["found_on_disk"] for name, stage in stages.items()}

    assert set(found()) == {"item texts", "item vectors", "item tokenizer", "user tokenizer", "text similarity"}
    assert all(found().values()) and all(found(f"--text_encoder={copy()}").values())
    other_seed = found("--seed=7")  # and the texts are not read again
    assert other_seed.pop("item texts") and not any(other_seed.values())
    assert not any(found("--text_encoder_max_tokens=12").values())
    assert not any(found("--random_weights=text_encoder").values())
    changed = copy("changed")
    with (changed / "tokenizer_config.json").open("a") as file:
        file.write(" ")
    assert not any(found(f"--text_encoder={changed}").values())
    plain = run_tiny("ContRec", "--item_vectors=text", "--epochs=1")["stages"]
    assert "item texts" not in plain and not plain["item vectors"]["found_on_disk"]


def test_the_stage_says_how_much_was_read(run_tiny):
    report = run_tiny("ContRec", *WITH_ENCODER, "--text_encoder_max_tokens=12")["stages"]["item texts"]["report"]
    assert report["texts"] == 60 and report["width"] == 64
    assert 8 < report["tokens"] <= 12 and 0 < report["share_at_the_cut"] <= 1


def test_principal_components_are_an_exact_svd_around_the_mean():
    torch.manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(30, 6) + 3, dim=1)
    texts[[0, 5]] = 0
    known = texts.any(1)
    vectors = principal_components(texts, 4)
    assert not vectors[~known].any() and torch.equal(vectors, principal_components(texts, 4))
    centred = (texts[known] - texts[known].mean(0)).double()
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(vectors[known].abs().double(), (left * values)[:, :4].abs(), atol=1e-5, rtol=0)
    wide = principal_components(texts, 9)
    assert wide.shape == (30, 9) and not wide[:, 6:].any()
    torch.testing.assert_close(wide[known] @ wide[known].T, (centred @ centred.T).float(), atol=1e-5, rtol=0)


def test_principal_components_of_texts_that_are_all_one():
    texts = torch.nn.functional.normalize(torch.ones(9, 6) + 1e-7 * torch.randn(9, 6), dim=1)
    assert not principal_components(texts, 4).any()  # rounding is no difference
    assert not principal_components(torch.zeros(3, 6), 4).any()


def vectors_of(config):
    found, dataset = {}, load_data(config).train.dataset
    for stage in vector_stages(config, dataset, found):
        stage.accept(stage.build(lambda *_: None).tensors)
    return found


def test_encoded_texts_stand_in_for_tfidf(config_of):
    alone = vectors_of(config_of("ContRec", *WITH_ENCODER))
    both = vectors_of(config_of("ContRec", *WITH_ENCODER, "--item_vectors=svd+text", "--vector_size=16"))
    svd = vectors_of(config_of("ContRec", "--vector_size=8"))
    half = vectors_of(config_of("ContRec", *WITH_ENCODER, "--vector_size=8"))
    assert alone["items"].shape == both["items"].shape == (61, 16) and not alone["items"][0].any()
    for side in ("users", "items"):
        torch.testing.assert_close(both[side], torch.cat([svd[side], half[side]], dim=1))
        varies = alone[side][1:].var(0, unbiased=False)
        assert varies[varies > 0].mean() == pytest.approx(1, abs=0.1)
    config = config_of("ContRec", "--item_vectors=text")
    tfidf = user_and_item_vectors(config, load_data(config).train.dataset, lambda *_: None)
    assert not torch.allclose(tfidf.items, alone["items"], atol=0.1)


def test_the_encoder_is_asked_by_what_reads_texts_alone(config_of):
    config = config_of("SIIT-states", *WITH_ENCODER, "--item_vectors=svd", "--item_descriptions=text")
    dataset = load_data(config).train.dataset
    check_source(config, dataset)
    assert [stage.name for stage in vector_stages(config, dataset, {})] == ["item texts", "item vectors"]
    assert [stage.name for stage in vector_stages(config, dataset, {"texts": 0}, "item_descriptions")] == [
        "item descriptions"
    ]
    with pytest.raises(UserError, match="text_encoder=.* reads item texts"):
        check_source(config_of("SIIT-states", *WITH_ENCODER, "--item_vectors=svd"), dataset)


@pytest.mark.parametrize("model", ["SIIT-states", "TokenRec-beam"])
def test_texts_are_read_once_for_all_seeds_and_uses(run_tiny, workplace, model):
    told = [*WITH_ENCODER, "--item_descriptions=text", "--self_improve=True", "--refine_rounds=0", "--epochs=1"]
    for further in ((), ("--seed=7",), ("--item_vectors=svd+text",)):
        run_tiny(model, *told, *further)
    assert len(list((workplace / "saved" / "stages").glob("item-texts-*"))) == 1


def test_a_width_beyond_that_of_the_model_is_filled_with_zeros(config_of):
    items = vectors_of(config_of("ContRec", *WITH_ENCODER, "--vector_size=80"))["items"]
    assert items.shape == (61, 80) and not items[:, 64:].any() and items[1:, :4].any(0).all()


def test_whitening_gives_all_directions_of_the_texts_the_same_size(encoder, config_of):
    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, *7 * [1.0]])
    vectors = torch.nn.functional.normalize(vectors + 3, dim=1)
    vectors[0] = 0
    plain, half, full = (principal_components(vectors, 5, share) for share in (0, 0.5, 1))
    assert torch.equal(plain, principal_components(vectors, 5)) and not full[0].any()
    deviations = plain[1:].std(0, correction=0)
    assert deviations[0] > 2 * deviations[4]
    torch.testing.assert_close(half[1:], plain[1:] / deviations.sqrt())
    torch.testing.assert_close(full[1:].T @ full[1:] / 199, torch.eye(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("with_encoder", [True, False])
def test_the_text_columns_alone_are_whitened(config_of, with_encoder):
    told = ("--item_vectors=svd+text", "--text_whitening=1", *([f"--text_encoder={STORIES}"] if with_encoder else []))
    whitened = vectors_of(config_of("ContRec", *told, "--vector_size=16"))["items"]
    plain = vectors_of(config_of("ContRec", *told, "--vector_size=16", "--text_whitening=0"))["items"]
    assert torch.equal(whitened[:, :8], plain[:, :8])
    covariance = whitened[1:, 8:].T @ whitened[1:, 8:] / 60
    torch.testing.assert_close(covariance, torch.eye(8), atol=1e-3, rtol=0)
    assert not torch.allclose(plain[1:, 8:].T @ plain[1:, 8:] / 60, torch.eye(8), atol=0.1)


def test_nothing_to_whiten_is_refused(config_of):
    dataset = load_data(config_of()).train.dataset
    with pytest.raises(UserError, match="text_whitening=0.5 is of item texts, and item_vectors=svd reads none"):
        check_source(config_of("ContRec", "--text_whitening=0.5"), dataset)
    check_source(config_of("ContRec", "--item_vectors=text", "--text_whitening=0.5"), dataset)


@pytest.mark.parametrize("model", ["DeftRec", "TokenRec"])
def test_other_models_read_them_too(run_tiny, model):
    assert run_tiny(model, *WITH_ENCODER)["stages"]["item texts"]["report"]["texts"] == 60


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--item_vectors=svd", "--text_similarity=0"),
            f"text_encoder='{STORIES}' reads item texts, and item_vectors=svd asks for none",
        ),
        (("--item_vectors=lightgcn", "--text_similarity=0"), "item_vectors=lightgcn asks for none"),
        (("--text_encoder=nowhere/at/all",), "there is no such folder"),
        (("--text_encoder_max_tokens=1000",), "at most 512"),
        (("--text_fields=[]",), "has no item texts"),
        (("--text_encoder=~", "--random_weights=text_encoder"), "random_weights=text_encoder: name the architecture"),
        (("--random_weights=both",), "random_weights=both: name the architecture by llm"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(run_tiny, workplace, arguments, message):
    before = set(workplace.rglob("*"))
    with pytest.raises(UserError, match=message):
        run_tiny("ContRec", *WITH_ENCODER, *arguments)
    assert set(workplace.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "  "])
def test_texts_that_are_all_empty(tiny, run_tiny, text):
    rows = ["item_id:token\ttitle:token_seq"] + [f"i{item}\t{text}" for item in range(60)]
    (tiny / "tiny" / "tiny.item").write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match="has item texts, but all are empty"):
        run_tiny("ContRec", *WITH_ENCODER)


def test_a_trained_model_needs_no_encoder(run_tiny, copy):
    folder = copy()
    checkpoint = run_tiny("ContRec", *WITH_ENCODER, f"--text_encoder={folder}")["checkpoint"]
    shutil.rmtree(folder)
    assert len(recommend(load_data_and_model(checkpoint), users=["u1"], k=3)) == 3
