"""What stands inside settings that are mappings, lists or intervals, and numbers that cannot be meant."""

import numpy as np
import pytest

from recbole_contrec.catalogue.places import package_properties
from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config
from recbole_contrec.settings.parts import check_interval, check_interval_and_type, check_parts, check_size
from recbole_contrec.settings.registry import find_model, is_overlay
from recbole_contrec.settings.schema import is_finite
from tests.helpers.files import write_atomic_files

REFUSED = [
    ("val_interval", {"rating": ">=3"}, "write an interval such as [3,inf)"),
    ("val_interval", {"rating": "<4"}, "(-inf,4)"),
    ("val_interval", {"rating": 5}, "[5,5]"),
    ("val_interval", {"rating": "[3,inf"}, "write an interval"),
    ("val_interval", {"rating": "[5,3]"}, "is above"),
    ("val_interval", {"rating": "[3,4];"}, "write an interval"),
    ("val_interval", {"rating": "[1,2][3,4]"}, "write an interval"),
    ("val_interval", {"rating": "[nan,3]"}, "write an interval"),
    ("val_interval", "[3,inf)", "write a mapping"),
    ("val_interval", {"rating": None}, "write an interval"),
    ("clip_grad_norm", {"foo": 1}, "unknown part foo"),
    ("clip_grad_norm", {"max_nrom": 1}, "did you mean max_norm?"),
    ("clip_grad_norm", {"max_norm": -1}, "above 0"),
    ("clip_grad_norm", {"max_norm": float("inf")}, "finite"),
    ("clip_grad_norm", {"norm_type": 2}, "needs max_norm"),
    ("clip_grad_norm", {"max_norm": 1, "norm_type": "two"}, "norm_type"),
    ("clip_grad_norm", 5, "{'max_norm': 1.0}"),
    ("threshold", {"rating": "3"}, "one column and a number"),
    ("threshold", {"a": 1, "b": 2}, "one column and a number"),
    ("seq_len", {"title": 0}, "at least 1"),
    ("load_col", {"items": ["item_id"]}, "did you mean item"),
    ("load_col", {"inter": "user_id"}, "list of columns"),
    ("unused_col", {"inter": "*"}, "list of columns"),
    ("alias_of_item_id", "other", "list of columns"),
    ("preload_weight", {"a": ["b"]}, "column of vectors"),
    ("discretization", {"price": {"method": "EF"}}, "'method': 'ED'"),
    ("discretization", {"price": {"method": "ED"}}, "bucket"),
    ("discretization", {"price": {"method": "LD"}}, "numerical_features"),
    ("user_inter_num_interval", "5", "[5,5]"),
    ("entity_kg_num_interval", ">=2", "[2,inf)"),
    ("eval_args", {"spilt": {}}, "did you mean split?"),
    ("eval_args", {"split": {"LO": 1}}, "must be one of {'LS'"),
    ("eval_args", {"split": {"LS": "valid_and_tets"}}, "did you mean valid_and_test"),
    ("eval_args", {"split": {"LS": "valid_only"}}, "nothing to test"),
    ("eval_args", {"split": {"RS": [0.8, 0.2]}}, "three shares"),
    ("eval_args", {"split": {"RS": [0.8, -0.1, 0.3]}}, "three shares"),
    ("eval_args", {"split": {"RS": [0, 0.5, 0.5]}}, "train on"),
    ("eval_args", {"split": {"RS": [0.8, 0.2, 0]}}, "to test"),
    ("eval_args", {"split": {"TS": [0.8, 0, 0.2]}}, "to validate"),
    ("eval_args", {"split": {"LS": "test_only", "RS": [1, 1, 1]}}, "must be one of"),
    ("eval_args", {"split": {"LS": 2}}, "must be one of valid_and_test"),
    ("eval_args", {"split": {"TS": [880000000, 890000000]}}, "two moments in time are {'GTS': [FIRST, SECOND]}"),
    ("eval_args", {"split": {"GTS": [0.8, 0.1, 0.1]}}, "must be the two moments"),
    ("eval_args", {"split": {"GTS": 5}}, "must be the two moments"),
    ("eval_args", {"split": {"GTS": [5, "90%"]}}, "must be the two moments"),
    ("eval_args", {"split": {"GTS": ["80", "90"]}}, "shares of the events before them, such as ['80%', '90%']"),
    ("eval_args", {"split": {"GTS": [True, 9]}}, "must be the two moments"),
    ("eval_args", {"split": {"GTS": [float("nan"), 9]}}, "must be finite"),
    ("eval_args", {"split": {"GTS": [9, 9]}}, "must be later"),
    ("eval_args", {"split": {"GTS": ["90%", "80.5%"]}}, "must be later"),
    ("eval_args", {"split": {"GTS": ["0%", "90%"]}}, "with events before and after them"),
    ("eval_args", {"split": {"GTS": ["80%", "100%"]}}, "with events before and after them"),
    ("eval_args", {"split": {"GST": [8, 9]}}, "did you mean GTS"),
    ("eval_args", {"split": "LS"}, "mapping"),
    ("eval_args", {"mode": "uni0"}, "uni100"),
    ("eval_args", {"mode": "uni"}, "uni100"),
    ("eval_args", {"mode": "unix"}, "uni100"),
    ("eval_args", {"mode": {"vaild": "full"}}, "did you mean valid?"),
    ("eval_args", {"group_by": "item"}, "one of user"),
    ("eval_args", "full", "write a mapping"),
    ("train_neg_sample_args", {"distribution": "popular"}, "did you mean popularity?"),
    ("train_neg_sample_args", {"sample_num": 0}, "from 1"),
    ("train_neg_sample_args", {"alpha": -1}, "at least 0"),
    ("train_neg_sample_args", {"dynamic": True}, "candidate_num"),
]


@pytest.mark.parametrize("key, value, text", REFUSED)
def test_what_cannot_be_meant_shows_the_right_form(key, value, text):
    with pytest.raises(UserError) as caught:
        check_parts(key, value, {})
    assert str(caught.value).startswith(key) and text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key, value",
    [
        ("val_interval", {"rating": "[3,inf)", "genre": ["a"]}),
        ("val_interval", {"time": "(-inf,1.5e9];[2e9,inf)"}),
        ("val_interval", None),
        ("clip_grad_norm", {"max_norm": 5.0, "norm_type": "inf"}),
        ("threshold", {"rating": 4}),
        ("load_col", {"inter": "*"}),
        (
            "eval_args",
            {"split": {"RS": [8, 1, 1]}, "group_by": None, "mode": {"valid": "uni100", "test": "full"}, "order": "RO"},
        ),
        ("eval_args", {"split": {"RS": [0.8, 0, 0.2]}}),
        ("eval_args", {"split": {"LS": "test_only"}}),
        ("eval_args", {"split": {"GTS": [-0.5, 881250949]}}),
        ("eval_args", {"split": {"GTS": ["9.5%", "10%"]}}),
        ("train_neg_sample_args", {"distribution": None}),
        ("seq_len", {"title": 3}),
    ],
)
def test_what_recbole_reads_passes(key, value):
    check_parts(key, value, {})


def test_the_form_of_a_filter_fits_its_column():
    check_interval_and_type("rating", "float", "[3,4]")
    check_interval_and_type("rating", "float", [3, 4])  # RecBole reads it as the interval that it looks like
    check_interval_and_type("genre", "token", ["a"])
    for kind, wanted, right in (("float", ["a"], "[3,inf)"), ("token", "[3,4]", "['a', 'b']")):
        with pytest.raises(UserError) as caught:
            check_interval_and_type("x", kind, wanted)
        assert right in str(caught.value)
    check_interval("n", None)


@pytest.mark.parametrize(
    "key, value",
    [
        ("n_layers", 100_000),
        ("num_heads", 0),
        ("hidden_size", -5),
        ("embedding_size", 0),
        ("attn_dropout_prob", 7),
        ("dropout_prob", -0.1),
        ("denoiser_depth", 2000),
    ],
)
def test_sizes_and_shares_of_recboles_models(key, value):
    with pytest.raises(UserError, match="must be"):
        check_size(key, value)
    check_size(key, 1)
    check_size("learning_rate", -1)  # has bounds of its own


@pytest.mark.parametrize(
    "argument",
    [
        "--learning_rate=inf",
        "--learning_rate=1e400",
        "--learning_rate=nan",
        "--weight_decay=-inf",
        "--seed=4294967296",
        "--seed=-1",
        "--epochs=1000000000000000000000",
        "--train_batch_size=1000000000000000000",
        "--topk=[100000000000000000000]",
        "--worker=-1",
        "--initializer_range=1e999",
        "--eval_args={'split': {'RS': [1e999, 1, 1]}}",
        "--loss_decimal_place=0",
        "--tail_ratio=0",
    ],
)
@pytest.mark.parametrize("model", ["SASRec", "ContRec"])
def test_numbers_out_of_bounds(config_of, model, argument):
    if model == "ContRec" and "initializer" in argument:
        argument = "--dropout=1e999"
    with pytest.raises(UserError) as caught:
        config_of(model, argument)
    assert argument[2:].split("=")[0] in str(caught.value) and len(str(caught.value)) < 300


def test_finite():
    assert is_finite({"a": [1, 2.5, "inf", None, True]})
    for value in (float("nan"), 10**400, -(2**64), {"a": [float("inf")]}, (1, float("-inf"))):
        assert not is_finite(value)


@pytest.mark.parametrize("model", ["SASRec", "ContRec", "TIGER", "SASRecAll", "BPR"])
def test_an_unknown_optimizer_is_refused(config_of, model):
    for name in ("foo", "adan"):
        with pytest.raises(UserError, match="one of adam, adamw"):
            config_of(model, f"--learner={name}")


def test_negatives_of_training(assembled):
    loaded = assembled(
        "BPR",
        "--train_neg_sample_args={'distribution': 'popularity', 'sample_num': 3, 'alpha': 0.5}",
        "--NEG_PREFIX=not_",
        "--train_batch_size=60",
    )
    batch = next(iter(loaded.data.train))
    assert len(batch) == 60 and "not_item_id" in batch and len(batch["user_id"].unique()) < 60
    loaded = assembled("BPR", "--train_neg_sample_args={'dynamic': True, 'candidate_num': 2}")
    assert loaded.config["train_neg_sample_args"] == {
        "distribution": "uniform",
        "sample_num": 1,
        "alpha": 1.0,
        "dynamic": True,
        "candidate_num": 2,
    }
    with pytest.raises(UserError, match="must be ~"):
        assembled("ContRec", "--train_neg_sample_args={'sample_num': 2}")


@pytest.mark.parametrize(
    "model, argument, words",
    [
        ("SASRec", "--USER_ID_FIELD=", "not empty"),
        ("BPR", "--field_separator=", "cannot stand between"),
        ("SASRec", "--USER_ID_FIELD=['a']", r"lacks \['a'\]"),
        ("BPR", "--USER_ID_FIELD=5", "lacks 5"),
        ("BPR", "--encoding=5", "no text encoding"),
        ("BPR", "--eval_args=RS", "write a mapping"),
        ("SASRec", "--threshold={1: 1}", "write a mapping"),
        ("BPR", "--val_interval={1: '[1,2]'}", "write a mapping"),
        ("SASRec", "--benchmark_filename={'a': 1}", "must name three parts"),
        ("BPR", "--TIME_FIELD=None", "order TO sorts by time"),
        ("SASRec", "--ITEM_LIST_LENGTH_FIELD=item_id", "would make a column 'item_id'"),
        ("SASRec", "--ITEM_LIST_LENGTH_FIELD=item_id_list", "would make a column 'item_id_list'"),
        ("SASRec", "--LIST_SUFFIX=", "not empty"),
        ("BPR", "--NEG_PREFIX=", "not empty"),
    ],
)
def test_columns_are_names_of_their_own(config_of, model, argument, words):
    with pytest.raises(UserError, match=words):
        config_of(model, argument)


@pytest.mark.parametrize(
    "model, argument, words",
    [
        ("SASRec", "--hidden_size=10000000", "at most 1000000"),
        ("MultiVAE", "--mlp_hidden_size=[10, 100000000]", "at most 1000000"),
        ("NeuMF", "--mlp_hidden_size=[0]", "at least 1"),
        ("SASRec", "--initializer_range=-1", "at least 0"),
        ("SASRec", "--layer_norm_eps=-1e-3", "at least 0"),
        ("BERT4Rec", "--mask_ratio=5", "from 0 to 1"),
        ("ItemKNN", "--k=0", "at least 1"),
        ("BERT4Rec", "--MAX_ITEM_LIST_LENGTH=3", "nothing would be masked"),
        ("SASRec", "--loss_type=ce", "did you mean CE"),
        ("BPR", "--train_neg_sample_args=~", "needs sampled ones"),
    ],
)
def test_numbers_and_names_of_recboles_models_have_bounds(config_of, model, argument, words):
    with pytest.raises(UserError, match=words):
        config_of(model, argument)


def test_what_recbole_reads_is_not_refused(config_of):
    assert config_of("BPR", "--learner=Adam")["learner"] == "adam"
    assert config_of("SASRec", "--world_size=-1")["world_size"] == -1
    config_of("SASRec", "--loss_type=BPR")
    config_of("NeuMF", "--train_neg_sample_args={'distribution': 'uniform', 'sample_num': 4}")


@pytest.mark.parametrize("columns, words", [("[]", "reads columns of items"), ("['price']", "numerical_features")])
def test_models_of_item_columns_read_some(workplace, columns, words):
    folder = write_atomic_files(workplace / "data", texts=False)
    rows = "".join(f"i{item}\t{item / 2}\n" for item in range(60))
    (folder / "tiny.item").write_text(f"item_id:token\tprice:float\n{rows}")
    with pytest.raises(UserError, match=words):
        Config("SASRecF", "tiny", arguments=["--data_path=data", f"--selected_features={columns}"])


def test_optimizers_that_need_sparse_gradients(run_tiny, workplace):
    with pytest.raises(UserError, match="has no sparse gradients"):
        run_tiny("BPR", "--learner=sparse_adam")
    assert not (workplace / "log").exists() and not (workplace / "saved").exists()


def test_models_that_cannot_be_built(assembled):
    with pytest.raises(UserError, match=r"NeuMF cannot be built with mlp_hidden_size=\[\]"):
        assembled("NeuMF", "--mlp_hidden_size=[]")


def test_numbers_of_numpy_are_numbers(config_of, tiny):
    given = {
        "seed": np.int32(7),
        "topk": np.array([5, 10]),
        "learning_rate": np.float32(0.5),
        "data_path": str(tiny),
        "eval_args": {"split": {"RS": (np.float64(0.8), 0.1, 0.1)}},
    }
    config = Config("BPR", "tiny", config_dict=given)
    assert config["topk"] == [5, 10] and config["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}
    assert type(config["seed"]) is int and type(config["learning_rate"]) is float


@pytest.mark.parametrize(
    "model", [path.stem for path in sorted((package_properties() / "model").glob("*.yaml")) if not is_overlay(path)]
)
def test_defaults_may_be_given_as_they_are(tiny, model):
    """As a checkpoint does."""
    defaults = {key: setting.default for key, setting in find_model(model, [package_properties()]).settings.items()}
    given = Config(model, "tiny", config_dict={**defaults, "data_path": "data", "use_gpu": False})
    assert {**{key: given[key] for key in defaults}, "train_neg_sample_args": None} == {
        **defaults,
        "train_neg_sample_args": None,
    }
