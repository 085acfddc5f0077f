"""Settings and recorded runs say which parts of a paper's method they are, and presets take their words along."""

import json

import pytest

from benchmarks.report.rows import PEERS
from recbole_contrec.catalogue.places import properties_folders
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.method import differences, method_of
from recbole_contrec.settings.recipe import paper_method, recipe_of
from recbole_contrec.settings.registry import find_model, model_exists
from tests.helpers.files import ROOT

SASREC = "recbole.model.sequential_recommender.sasrec:SASRec"
RESULTS = ROOT / "benchmarks" / "results"


def configured(tiny, model, *arguments):
    return Config(model, "tiny", arguments=[f"--data_path={tiny}", *arguments])


def method(tiny, model, *arguments):
    return method_of(configured(tiny, model, *arguments).to_record())


def test_a_variant_and_the_recipe_of_its_paper_are_told_apart(tiny):
    for model in ("ContRec", "DeftRec", "TokenRec", "TIGER", "SIIT"):
        ours, paper = method(tiny, model), method(tiny, f"{model}-paper")
        assert differences(ours, paper) and ours != paper and str(ours) != str(paper)
    ours, paper = method(tiny, "ContRec"), method(tiny, "ContRec-paper")
    assert ours.short == "compact, text similarity, 1 diffusion step, ranking loss"
    assert paper.short == "compact, 200 diffusion steps, no ranking loss"
    assert method(tiny, "ContRec", "--text_similarity=0").short == "compact, 1 diffusion step, ranking loss"
    assert method(tiny, "TokenRec").short == "compact, text similarity, one pass, ranking loss"
    for model, texts in (("SASRecAll-svd", ""), ("SASRecAll-texts", "text similarity, ")):
        assert method(tiny, model).short == f"SASRec, loss at every position, svd initialisation, {texts}repeat bias"
    assert (
        ours.language_model == "compact 2x64"
        and ours.words == "text similarity in the score, weight by validation"
        and ours.history == "200 items"
    )
    assert ours.tokens == "sigma-VAE K=2, users 2, added up + item vector" and ours.repeats == "repeat bias"
    assert paper.generation == "diffusion of 200 levels, 200 steps, 1 sample, guidance 2"
    assert "10 negatives" in method(tiny, "DeftRec").generation
    assert method(tiny, "SASRec") is None


@pytest.mark.parametrize(
    "arguments, part, text",
    [
        (["--llm=some/Model-1B", "--lora_rank=4"], "language_model", "Model-1B, LoRA of rank 4"),
        (["--llm=/somewhere/model", "--lora_rank=0"], "language_model", "model, all weights trained"),
        (["--llm=/somewhere/model", "--train_llm=False"], "language_model", "model, frozen"),
        (
            ["--llm=a/model", "--train_llm=False", "--random_weights=llm"],
            "short",
            "model with random weights, frozen, text similarity, 1 diffusion step, ranking loss",
        ),
        (["--llm=a/model"], "short", "model LoRA, text similarity, 1 diffusion step, ranking loss"),
        (["--llm=a/model", "--lora_rank=0"], "short", "model, text similarity, 1 diffusion step, ranking loss"),
        (
            ["--llm=a/model", "--random_weights=llm"],
            "short",
            "model with random weights LoRA, text similarity, 1 diffusion step, ranking loss",
        ),
        (["--num_samples=8", "--sampling_steps=50"], "generation", "diffusion of 200 levels, 50 steps, 8 samples"),
        (["--objective=regression"], "generation", "regression, no diffusion"),
        ([], "loss", "ranking loss + denoising + dispersive loss"),
        (["--dispersive_weight=0"], "loss", "ranking loss + denoising"),
        (["--dispersive_weight=0", "--regression_weight=0"], "loss", "ranking loss only"),
        (["--dispersive_weight=0", "--regression_weight=0"], "generation", "one pass of the head, no denoising"),
        (
            ["--dispersive_weight=0", "--regression_weight=0"],
            "short",
            "compact, text similarity, no denoising, ranking loss",
        ),
        (["--regression_weight=0", "--sampling_steps=2"], "generation", "diffusion of 200 levels, 2 steps, 1 sample"),
        (["--objective=regression"], "loss", "ranking loss + regression + dispersive loss"),
        (["--llm=a/Model", "--llm_layers=1"], "language_model", "Model, its first layer, LoRA of rank 8"),
        (
            ["--prompt_text=words", "--answer_weight=0.1", "--text_similarity=0"],
            "words",
            "titles in the prompt, answers",
        ),
        (["--item_vectors=svd+text", "--text_encoder=a/MiniLM"], "vectors", "svd+text (MiniLM) of 64, trained"),
        (
            ["--text_encoder=a/MiniLM", "--random_weights=text_encoder", "--text_similarity=4"],
            "words",
            "text similarity (MiniLM with random weights) in the score",
        ),
        (
            ["--item_vectors=svd+text", "--text_whitening=1", "--train_text_columns=False"],
            "vectors",
            "svd+text (whitened, not trained) of 64, trained",
        ),
        (["--item_vectors=a/texts.npy", "--text_encoder=a/MiniLM"], "vectors", "texts.npy of 64, trained"),
        (["--user_tokens=0"], "tokens", "sigma-VAE K=2, no user tokens, added up + item vector"),
    ],
)
def test_every_part_shows_in_the_description(tiny, arguments, part, text):
    assert getattr(method(tiny, "ContRec", *arguments), part) == text


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "random at the start, trained"),
        (["--item_vectors=text", "--item_vectors_init=vectors"], "text at the start, trained"),
        (
            ["--item_vectors=svd+text", "--train_text_columns=False"],
            "random at the start, texts of svd+text (not trained), trained",
        ),
    ],
)
def test_the_vectors_of_the_control_show_in_the_description(tiny, arguments, text):
    assert method(tiny, "SASRecAll", *arguments).vectors == text


def test_other_models_may_have_settings_of_the_same_names(tiny, workplace):
    """RecBole's diffusion of users' histories, and a model of one's own, have no such method."""
    assert method(tiny, "DiffRec") is None
    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    further = "sampling_steps: 5\nbeam_size: 3\nnum_codebooks: 2\npairwise_weight: 1.0\n"
    (folder / "Mine.yaml").write_text(f"extends: SASRec\nmodel_class: {SASREC}\n{further}")
    assert method(tiny, "Mine") is None and recipe_of(configured(tiny, "Mine")) is None


@pytest.mark.parametrize("semantic_ids, kind", [("~", "masked vector quantiser"), ("a/ids.json", "ids.json")])
def test_where_semantic_ids_come_from_shows_in_the_description(tiny, semantic_ids, kind):
    assert method(tiny, "TokenRec-beam", f"--semantic_ids={semantic_ids}").tokens == f"{kind} K=3"


def test_all_codes_of_a_file_are_counted(tiny):
    """As a run notes them: num_codebooks of TIGER leaves out the last one."""
    noted = ["--semantic_ids=a/ids.json", "--num_codebooks=2", "--codebook_size=6"]
    assert method(tiny, "TIGER", *noted).tokens == "ids.json K=3 of 6 in sums"
    assert method(tiny, "TIGER", "--num_codebooks=2", "--codebook_size=6").tokens == "RQ-VAE K=2 of 6 in sums"
    assert method(tiny, "TokenRec-beam", *noted).tokens == "ids.json K=2 of 6"


def test_instructions_show_beside_the_descriptions_of_items(tiny):
    arguments = ["--self_improve=True", "--item_descriptions=words", "--instructions=['Films that somebody liked:']"]
    assert method(tiny, "TIGER", *arguments).words == "instructions, items described by words"
    assert method(tiny, "TIGER", *arguments[:2]).words == "items described by words"


def test_a_preset_of_ones_own_is_measured_against_the_paper_of_its_base(tiny, workplace):
    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    (folder / "MyRec.yaml").write_text("extends: ContRec\nitem_tokens: 4\n")
    (folder / "MyPaper.yaml").write_text("extends: ContRec-paper\nguidance: 1.0\n")
    mine = recipe_of(configured(tiny, "MyRec"))
    assert mine.name == "ContRec-paper" and not mine.followed and "tokens" in mine.differences
    assert "this is not the recipe of the paper, which is --model=ContRec-paper" in str(mine)
    near = recipe_of(configured(tiny, "MyPaper"))
    assert near.followed and "guidance 1 (recipe: " in str(near) and "tokens" not in near.differences


def test_the_paper_is_described_with_its_own_language_model_and_words(tiny):
    folders = properties_folders()
    assert paper_method("ContRec-paper", folders).language_model == "Llama-3.2-1B-Instruct, LoRA of rank 16"
    assert "condition: the answer" in paper_method("DeftRec-paper", folders).words
    assert paper_method("TokenRec-paper", folders).language_model == "t5-small, all weights trained"
    assert paper_method("TIGER-paper", folders).vectors == "text (sentence-t5-base) of 768"
    tiger = recipe_of(configured(tiny, "TIGER-paper", "--text_encoder=a/sentence-t5-base", "--vector_size=768"))
    assert not tiger.differences
    compact = recipe_of(configured(tiny, "ContRec-paper"))
    assert compact.followed and set(compact.differences) == {"language model", "words", "vectors"}
    assert compact.differences["vectors"] == ("lightgcn of 64", "lightgcn of 512")
    with_model = recipe_of(configured(tiny, "ContRec-paper", "--llm=some/Model"))
    assert set(with_model.differences) == {"language model", "vectors"}
    assert recipe_of(configured(tiny, "SASRecAll")) is None
    # a paper that names no language model
    assert "language model: Model, LoRA of rank 8 (recipe: compact" in str(
        recipe_of(configured(tiny, "SIIT-paper", "--llm=some/Model"))
    )


def test_what_a_run_changes_of_a_preset_is_told_also_where_no_part_of_the_method_shows_it(tiny):
    told = recipe_of(configured(tiny, "ContRec-paper"))
    assert not told.settings
    arguments = ["--similarity=cosine", "--epochs=3", "--guidance=1", "--dispersive_weight=0", "--gpu_id=", "--seed=7"]
    changed = recipe_of(configured(tiny, "ContRec-paper", *arguments))
    assert changed.settings == {"similarity": ("'cosine'", "'inner'"), "epochs": ("3", "30")}
    assert {"generation", "loss"} <= changed.differences.keys()  # guidance and the dispersive loss are told there
    assert "epochs=3 (preset: 30)" in str(changed)
    assert not recipe_of(configured(tiny, "ContRec", "--epochs=3")).settings  # ours, no preset of a paper


def test_what_a_run_changes_of_the_words_of_a_preset_is_told(tiny):
    """Also where it goes back to what the model has without words."""
    arguments = ["--answers_per_window=16", "--answer_beams=4", "--answer_template={category}", "--text_bonus=0.2"]
    preset = "'The user might lean towards {category} products'"
    assert recipe_of(configured(tiny, "ContRec-paper", "--llm=some/Model", *arguments)).settings == {
        "answers_per_window": ("16", "2"),
        "answer_beams": ("4", "1"),
        "answer_template": ("'{category}'", preset),
        "text_bonus": ("0.2", "0.05"),
    }
    (tiny / "tiny" / "tiny.item").unlink()  # then the preset has no words
    assert not recipe_of(configured(tiny, "ContRec-paper", "--llm=some/Model", "--answer_beams=4")).settings


def test_what_files_change_of_a_preset_is_told_as_well(tiny, workplace):
    """Those of its base for a data set, and of a model that extends it."""
    folder = workplace / "properties" / "model"
    folder.mkdir(parents=True)
    (folder / "TIGER_on_tiny.yaml").write_text("warmup_ratio: 0.2\nepochs: 7\n")  # a preset keeps epochs of its own
    assert recipe_of(configured(tiny, "TIGER-paper")).settings == {"warmup_ratio": ("0.2", "0.05")}
    (folder / "MyPaper.yaml").write_text("extends: ContRec-paper\nsimilarity: cosine\n")
    assert recipe_of(configured(tiny, "MyPaper")).settings == {"similarity": ("'cosine'", "'inner'")}
    for model in ("ContRec-paper", "DeftRec-paper", "TokenRec-paper", "SIIT-paper"):
        for arguments in ([], ["--llm=some/Model"]):
            found = recipe_of(configured(tiny, model, *arguments)).settings
            assert found == ({"epochs": ("7", "20"), "warmup_ratio": ("0.2", "0.05")} if model == "SIIT-paper" else {})


def test_a_setting_is_changed_by_its_value_and_not_by_how_it_is_written(tiny):
    same = configured(tiny, "ContRec-paper", "--ranking_weight=0", "--guidance=2", "--weight_decay=.001")
    assert not recipe_of(same).settings and same.describe().endswith(
        "changed settings: data_path='" + f"{tiny}' (command line)"
    )
    long = [f"number {number} of the instructions" for number in range(40)]
    other = [*long[:20], "another one of these instructions", *long[21:]]
    preset = configured(tiny, "TokenRec-paper", f"--instructions={other}")
    preset._defaults["instructions"] = long
    assert "instructions=" in preset.describe()  # they differ in the middle, which is not shown


@pytest.mark.parametrize(
    "model, arguments, told",
    [
        ("TokenRec-paper", [], True),
        ("TokenRec-paper", ["--lora_rank=4"], False),
        ("TokenRec-paper", ["--train_llm=False"], False),
        ("ContRec-paper", [], False),
        ("ContRec-paper", ["--lora_rank=0"], True),
    ],
)
def test_weights_in_sixteen_bits_are_told_where_they_are_trained(tiny, model, arguments, told):
    changed = recipe_of(configured(tiny, model, "--llm=some/Model", "--llm_dtype=bfloat16", *arguments)).settings
    assert changed == ({"llm_dtype": ("'bfloat16'", "'float32'")} if told else {})


@pytest.mark.parametrize("model, bonus", [("ContRec-paper", 0.05), ("DeftRec-paper", 0.1)])
def test_words_come_with_a_language_model_that_reads_titles(tiny, model, bonus, caplog):
    compact, pretrained = configured(tiny, model), configured(tiny, model, "--llm=some/Model")
    assert (compact["prompt_text"], compact["answer_weight"], compact["condition_on"]) == ("none", 0.0, "history")
    assert (pretrained["prompt_text"], pretrained["answer_weight"]) == ("words", 0.1)
    assert (pretrained["condition_on"], pretrained["text_bonus"]) == ("answer", bonus)
    assert f"{model}_with_words.yaml" in pretrained.describe() and "prompt_text" not in pretrained.describe()
    asked = configured(tiny, model, "--llm=some/Model", "--answer_weight=0.5", "--prompt_text=none")
    assert (asked["prompt_text"], asked["answer_weight"]) == ("none", 0.5)
    assert configured(tiny, "ContRec", "--llm=some/Model")["answer_weight"] == 0.0  # of the presets alone


@pytest.mark.parametrize("file", ["model/ContRec-paper_on_tiny.yaml", "dataset/tiny.yaml"])
def test_what_is_set_for_the_data_set_goes_before_the_words_of_a_preset(tiny, workplace, file):
    path = workplace / "properties" / file
    path.parent.mkdir(parents=True)
    path.write_text('item_template: "{genre}"\nanswer_weight: 0.5\n')
    config = configured(tiny, "ContRec-paper", "--llm=some/Model")
    assert (config["item_template"], config["answer_weight"], config["prompt_text"]) == ("{genre}", 0.5, "words")


def test_without_titles_there_are_no_words_and_the_log_says_so(tiny, caplog):
    (tiny / "tiny" / "tiny.item").write_text("item_id:token\tprice:float\ni1\t3\n")
    config = configured(tiny, "ContRec-paper", "--llm=some/Model")
    assert config["prompt_text"] == "none"
    assert "ContRec-paper reads no words of the items: no text field looks like a title" in caplog.text


def test_where_all_is_given_as_in_a_checkpoint_nothing_is_said_of_words(tiny, caplog):
    before = configured(tiny, "ContRec-paper", "--llm=some/Model")
    (tiny / "tiny" / "tiny.item").unlink()
    again = Config("ContRec-paper", "tiny", config_dict=before.to_record())
    of_words = ("prompt_text", "item_template", "answer_weight", "answer_template", "condition_on", "instructions")
    assert [again[key] for key in of_words] == [before[key] for key in of_words] and again["prompt_text"] == "words"
    assert "reads no words" not in caplog.text
    assert configured(tiny, "ContRec-paper", "--llm=some/Model", "--prompt_text=words")["answer_weight"] == 0
    assert "reads no words of the items: there is no tiny.item" in caplog.text


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("*/*/seed2020.json")), ids=lambda path: "/".join(path.parts[-3:-1])
)
def test_recorded_runs_are_described_by_their_settings(path):
    content = json.loads(path.read_text())
    found = method_of(content["settings"])
    model = content["card"]["model"]
    folders = properties_folders()
    known = model_exists(model, folders)  # not those of a folder that a benchmark wrote for its runs
    recbole = model == "Pop" or known and find_model(model, folders).is_recbole
    assert (found is None) == (recbole or model in PEERS)
    if found:
        settings = content["settings"]
        first = f" of the first {settings['first_n']}" if settings.get("first_n") else ""
        shuffled = ", shuffled" * bool(settings.get("shuffle_history"))
        assert found.short and f"{settings['MAX_ITEM_LIST_LENGTH']} items{first}{shuffled}" == found.history
