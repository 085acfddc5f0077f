"""Settings that have an effect under another one only: given where nothing reads them, they are refused or named."""

import pytest

from recbole_contrec import load_data_and_model, write_item_vectors
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.unread import NAMED, REFUSED, check_unread
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.registry import find_model
from tests.helpers.files import STORIES

LLM = f"--llm={STORIES}"
ENCODER = f"--text_encoder={STORIES}"
WORDS = "--prompt_text=words"
MODELS = (
    *("ContRec", "ContRec-paper", "DeftRec", "DeftRec-paper", "TokenRec", "TokenRec-paper", "TokenRec-beam"),
    *("TIGER", "TIGER-paper", "SIIT", "SIIT-paper", "SIIT-states", "SASRecAll", "SASRecAll-svd", "SASRecAll-texts"),
)


@pytest.fixture
def of(tiny):
    """A function (model, *arguments) -> Config with the shipped defaults, but for these."""
    return lambda model, *arguments: Config(model, "tiny", arguments=[f"--data_path={tiny}", *arguments])


def named(caplog):
    """What was said of settings that nothing reads; other tests may have turned up what else is told."""
    return [record for record in caplog.records if "has no effect" in record.message]


@pytest.mark.parametrize(
    "model, setting, needs, message",
    [
        ("ContRec", "--lightgcn_epochs=3", "--item_vectors=lightgcn", "set item_vectors=lightgcn as well"),
        ("SASRecAll-svd", "--lightgcn_epochs=3", "--item_vectors=lightgcn", "set item_vectors=lightgcn as well"),
        ("SIIT", "--lightgcn_epochs=3", "--item_descriptions=lightgcn", "no vectors come from LightGCN"),
        ("TIGER", "--text_encoder_max_tokens=32", ENCODER, "set text_encoder as well"),
        ("ContRec", "--text_encoder_max_tokens=32", ENCODER, "set text_encoder as well"),
        ("TokenRec-paper", "--lora_alpha=8", "--lora_rank=4", "with lora_rank=0 all weights are trained"),
        ("TokenRec-paper", "--lora_targets=default", "--lora_rank=4", "there are no adapters"),
        ("ContRec", "--category_field=genre", "--answer_weight=0.1", "set prompt_text or answer_weight as well"),
        ("ContRec", "--title_field=title", WORDS, "nothing is read or said of the items"),
        ("ContRec", "--category_template={title}", "--answer_weight=0.1", "nothing is answered"),
        ("ContRec", "--vocabulary_size=300", WORDS, "no vocabulary is trained"),
        ("ContRec", "--vocabulary_size=300", "--instructions=['what comes next']", "no vocabulary is trained"),
        ("TokenRec", "--sampled_prefixes=2", "--backbone=t5", "set backbone=t5 as well"),
        ("TokenRec", "--decoder_query_tokens=2", "--backbone=t5", "set backbone=t5 as well"),
    ],
)
def test_settings_of_what_is_not_there_are_refused(of, model, setting, needs, message):
    common = (LLM,) if setting.startswith("--lora") else ()
    with pytest.raises(UserError, match=message) as error:
        check_unread(of(model, setting, *common))
    assert str(error.value).startswith(setting[2:].split("=")[0] + ":")
    check_unread(of(model, setting, needs, *common))


@pytest.mark.parametrize("setting", ["--paper_llm=a/model", "--paper_text_encoder=a/model", "--paper_vector_size=64"])
def test_what_the_paper_has_is_not_taken_for_what_is_loaded(of, setting):
    with pytest.raises(UserError, match=rf"^{setting[2:].split('=')[0]}: .* nothing is loaded by it: set llm"):
        check_unread(of("ContRec-paper", setting))
    check_unread(of("ContRec-paper"))


def test_the_words_of_a_pretrained_model_are_its_own(of):
    with pytest.raises(UserError, match="vocabulary_size: no vocabulary is trained: an llm brings its own"):
        check_unread(of("ContRec", LLM, WORDS, "--vocabulary_size=300"))


@pytest.mark.parametrize("setting", ["--lora_rank=4", "--lora_layers=2", "--llm_learning_rate=0.1"])
def test_nothing_of_a_frozen_model_is_tuned(of, setting):
    check_unread(of("ContRec", LLM, setting))
    with pytest.raises(UserError, match=rf"^{setting[2:].split('=')[0]}: train_llm=False trains no weight of llm"):
        check_unread(of("ContRec", LLM, setting, "--train_llm=False"))


@pytest.mark.parametrize(
    "model, setting, without, why",
    [
        ("ContRec", "--n_layers=1", LLM, "of the compact language model"),
        ("ContRec", "--dropout=0.1", LLM, "of the compact language model"),
        ("TokenRec", "--dropout=0.1", LLM, "of the compact language model"),
        ("ContRec", "--tokenizer_epochs=3", "--tokenizer=none", "no network is trained"),
        ("ContRec", "--token_mask_ratio=0.5", "--tokenizer=none", "no network is trained"),
        ("TIGER", "--commitment_weight=0.5", "--semantic_ids=rkmeans", "no network is trained"),
        ("TIGER", "--tokenizer_epochs=3", "--semantic_ids=ids.json", "no network is trained"),
        ("SIIT-states", "--tokenizer_epochs=3", "--semantic_ids=pq", "no network is trained"),
        ("ContRec", "--token_sigma=0.5", "--tokenizer=plain", "of tokenizer=sigma alone"),
        ("ContRec", "--user_token_dropout=0.1", "--user_tokens=0", "no tokens of the user"),
        ("TokenRec", "--fold_in=False", "--num_user_codebooks=0", "no tokens of the user"),
        ("ContRec", "--label_smoothing=0.1", "--ranking_weight=0", "ranking_weight is 0"),
        ("ContRec", "--temperature=0.1", "--similarity=inner", "of similarity=cosine alone"),
        ("TokenRec-paper", "--pairwise_margin=0.5", "--pairwise_weight=0", "pairwise_weight is 0"),
        ("ContRec", "--dispersive_temperature=1", "--dispersive_weight=0", "dispersive_weight is 0"),
        ("ContRec", "--dispersive_temperature=1", "--dispersive_loss=covariance", "of the InfoNCE forms"),
        ("ContRec", "--noisy_skip=True", "--objective=regression", "there is no noisy vector"),
        ("ContRec-paper", "--ddim_eta=0.5", "--sampling_steps=1", "of more than one of sampling_steps"),
        ("ContRec-paper", "--common_noise=True", "--sampling_steps=1", "one step and one sample draw no noise"),
        ("DeftRec", "--negative_source=batch", "--contrastive_weight=0", "contrastive_weight is 0"),
        ("DeftRec", "--contrastive_scale=2", "--contrastive_loss=hinge", "of contrastive_loss=bpr alone"),
        ("SIIT", "--alignment_items=9", "--alignment_weight=0", "alignment_weight is 0"),
        ("SIIT", "--refine_candidates=8", "--refine_rounds=0", "refine_rounds is 0"),
        ("SASRecAll", "--adam_beta2=0.9", "--learner=sgd", "of the Adam optimizers alone"),
        ("ContRec", "--text_fields=['title']", "--text_similarity=0", "nothing that is trained or scored reads item"),
        ("SASRecAll-texts", "--text_fields=['title']", "--text_similarity=0", "reads item texts"),
        ("TIGER", "--token_size=16", "--semantic_ids=rkmeans", "no network is trained"),
        ("ContRec", "--noisy_skip=True", "--prediction=v", "of prediction=x0 alone"),
        ("ContRec", "--barlow_twins_weight=0.1", "--item_tokens=1 --user_tokens=1", "one token has no other"),
        (
            "ContRec",
            "--noise_draws=2",
            "--regression_weight=0 --dispersive_weight=0",
            "nothing is denoised in training",
        ),
        ("DeftRec", "--condition_dropout=0.1", "--regression_weight=0 --contrastive_weight=0", "nothing is denoised"),
        ("DeftRec", "--condition_pooling=mean", "--answer_weight=0.1 --condition_on=answer", "from the answer"),
        ("TIGER", "--item_vectors=lightgcn", "--semantic_ids=clusters --code_vectors_init=random", "is made of item"),
    ],
)
def test_numbers_of_what_is_off_are_named(of, caplog, model, setting, without, why):
    check_unread(of(model, setting))
    assert not named(caplog)
    check_unread(of(model, setting, *without.split()))
    (record,) = named(caplog)
    key = setting[2:].split("=")[0]
    assert record.message.startswith(f"{key}=") and "has no effect" in record.message and why in record.message


ANSWERS = "--answer_weight=0.1"
TITLES = "--answer_template={title}"


@pytest.mark.parametrize(
    "model, setting, common, reader, why",
    [
        ("ContRec", "--category_template={title}", [ANSWERS], "--text_bonus=0.1", "text_bonus is 0"),
        ("DeftRec", "--category_template={title}", [ANSWERS], "--text_bonus=1", "text_bonus is 0"),
        ("ContRec", "--title_field=title", [ANSWERS], TITLES, "holds {title}"),
        ("DeftRec", "--title_field=title", [ANSWERS], WORDS, "holds {title}"),
        ("ContRec", "--category_field=genre", [WORDS, "--item_template={title}"], ANSWERS, "holds {category}"),
        ("DeftRec", "--category_field=genre", [ANSWERS, TITLES], "--text_bonus=0.1", "holds {category}"),
    ],
)
def test_what_no_template_holds_is_named(of, caplog, model, setting, common, reader, why):
    check_unread(of(model, setting, *common, reader))
    assert not named(caplog)
    check_unread(of(model, setting, *common))
    (record,) = named(caplog)
    assert record.message.startswith(setting[2:].split("=")[0]) and why in record.message


def test_two_settings_that_need_more_than_the_default(of, caplog):
    check_unread(of("ContRec", "--sample_pooling=mean"))
    check_unread(of("DeftRec", "--contrastive_margin=2"))
    assert [record.message.split(" has no effect: ") for record in named(caplog)] == [
        ["sample_pooling='mean'", "num_samples is 1"],
        ["contrastive_margin=2", "of contrastive_loss=hinge alone"],
    ]
    check_unread(of("ContRec", "--sample_pooling=mean", "--num_samples=4"))
    check_unread(of("DeftRec", "--contrastive_margin=2", "--contrastive_loss=hinge"))
    check_unread(of("TokenRec", LLM, "--dropout=0.1", "--projection_size=32"))  # the projection has dropout as well
    assert len(named(caplog)) == 2


@pytest.mark.parametrize(
    "model, reader",
    [
        ("ContRec", "--item_vectors=svd+text"),
        ("ContRec", "--text_similarity=~"),
        ("ContRec", WORDS),
        ("DeftRec", "--answer_weight=0.1"),
        ("SIIT", "--item_descriptions=words"),
        ("TIGER", "--item_vectors=text"),
    ],
)
def test_text_fields_are_asked_for_by_whatever_reads_texts(of, caplog, model, reader):
    off = () if model in ("TIGER", "SIIT") else ("--text_similarity=0",)
    check_unread(of(model, "--text_fields=['title']", reader, *(off if reader != "--text_similarity=~" else ())))
    check_unread(of(model, "--text_fields=[]", *off))  # reads none, as was asked for
    assert not named(caplog)
    check_unread(of(model, "--text_fields=['title']", *off))
    assert len(named(caplog)) == 1


def test_vectors_that_nothing_is_made_of(of, caplog):
    alone = ("--item_vectors=lightgcn", "--semantic_ids=ids.json")
    check_unread(of("TIGER", *alone))  # its code vectors start at them
    check_unread(of("SIIT", *alone, "--code_vectors_init=random"))  # they describe the items
    check_unread(of("TokenRec-beam", *alone))
    check_unread(of("TokenRec-beam", *alone, "--num_user_codebooks=0"))  # with id_embedding
    assert not named(caplog)
    check_unread(of("TokenRec-beam", *alone, "--num_user_codebooks=0", "--id_embedding=False"))
    check_unread(of("TokenRec-beam", "--code_gradient=rotation", "--semantic_ids=ids.json", "--num_user_codebooks=0"))
    assert [record.message.split(" has no effect: ")[0] for record in named(caplog)] == [
        "item_vectors='lightgcn'",
        "code_gradient='rotation'",
    ]


def test_random_weights_of_a_language_model_that_a_model_has_not(of):
    with pytest.raises(UserError, match="random_weights: this model has no language model"):
        check_unread(of("SASRecAll-svd", "--random_weights=llm"))
    check_unread(of("ContRec", LLM, "--random_weights=llm"))


def test_codes_that_are_quantised_anew_need_a_network(of, caplog):
    for given in ("--semantic_ids=clusters", "--semantic_ids=ids.json"):
        check_unread(of("SIIT-states", "--tokenizer_epochs=3", given))
    check_unread(of("TokenRec-beam", "--tokenizer_epochs=3", "--semantic_ids=ids.json"))  # the codes of users
    assert not named(caplog)
    check_unread(of("TokenRec-beam", "--tokenizer_epochs=3", "--semantic_ids=ids.json", "--num_user_codebooks=0"))
    check_unread(of("SIIT", "--tokenizer_epochs=3", "--semantic_ids=clusters"))  # writes codes itself
    assert len(named(caplog)) == 2


@pytest.mark.parametrize("model", MODELS)
def test_what_yaml_files_say_is_not_complained_of(of, caplog, model, tiny, workplace):
    """Of the model, its presets and a data set."""
    check_unread(of(model))
    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    (folder / f"{model}_on_tiny.yaml").write_text("adam_beta2: 0.9\nlearner: sgd\n")
    assert of(model)["adam_beta2"] == 0.9
    check_unread(of(model))
    assert not named(caplog)


def test_every_setting_of_the_rules_is_one_of_a_model(workplace):
    known = {key for model in MODELS for key in find_model(model, properties_folders(None)).settings}
    assert {key for rule in (*REFUSED, *NAMED) for key in rule.keys} <= known


@pytest.mark.parametrize("model", ["ContRec", "TokenRec", "TIGER", "SASRecAll-svd"])
def test_a_run_asks_before_anything_is_written(run_tiny, workplace, model):
    before = set(workplace.rglob("*"))
    with pytest.raises(UserError, match="lightgcn_epochs: no vectors come from LightGCN"):
        run_tiny(model, "--lightgcn_epochs=3")
    assert set(workplace.rglob("*")) == before


@pytest.mark.parametrize("model", ["ContRec", "DeftRec", "TokenRec", "TokenRec-beam", "TIGER", "SASRecAll-svd"])
def test_a_run_asks_before_data_and_models_are_loaded(run_tiny, workplace, monkeypatch, model):
    def load(*_):
        raise AssertionError("loaded")

    monkeypatch.setattr("recbole_contrec.quick_start.load_data", load)
    monkeypatch.setattr("recbole_contrec.backbone.pretrained_model.load_pretrained", load)
    of_llm = () if model.startswith("SASRec") else (LLM,)
    with pytest.raises(UserError, match="lightgcn_epochs: no vectors come from LightGCN"):
        run_tiny(model, *of_llm, "--lightgcn_epochs=3")


def test_vectors_are_asked_of_before_data_are_loaded(tiny, workplace, monkeypatch):
    monkeypatch.setattr("recbole_contrec.item_files.load_data", lambda config: pytest.fail("loaded"))
    with pytest.raises(UserError, match="no vectors come from LightGCN"):
        write_item_vectors("v.npy", "ContRec", "tiny", arguments=[f"--data_path={tiny}", "--lightgcn_epochs=3"])


def test_a_run_that_goes_on_is_not_asked_again(run_tiny, caplog):
    """Its checkpoint holds all settings as given ones."""
    arguments = ("--user_tokens=0", LLM, "--run_name=cut")
    run_tiny("ContRec", *arguments, "--epochs=1")
    caplog.clear()
    run_tiny("ContRec", *arguments, "--epochs=2", resume="saved/cut")
    assert "has no effect" not in caplog.text


def test_vectors_that_are_written_alone_are_asked_of_their_own_settings(tiny, workplace, caplog):
    arguments = [f"--data_path={tiny}", "--show_progress=False"]
    for setting in ("--lightgcn_epochs=3", "--text_encoder_max_tokens=32"):
        with pytest.raises(UserError, match="no vectors come from LightGCN|no text encoder reads item texts"):
            write_item_vectors("v.npy", "ContRec", "tiny", arguments=[*arguments, setting])
    assert not (workplace / "v.npy").exists()
    write_item_vectors("v.npy", "ContRec", "tiny", arguments=[*arguments, "--sample_pooling=mean"])
    assert "has no effect" not in caplog.text


def test_a_checkpoint_holds_all_settings_and_is_loaded_without_a_word(run_tiny, caplog):
    checkpoint = run_tiny("ContRec", LLM, "--user_tokens=0", "--epochs=1")["checkpoint"]
    assert "n_layers=1, inner_size=32 has no effect" in caplog.text
    caplog.clear()
    load_data_and_model(checkpoint)
    assert "has no effect" not in caplog.text
