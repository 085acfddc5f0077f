"""
recbole_contrec.settings.recbole_keys
#####################################
Every setting that RecBole's own YAML files, lists of arguments and command line know, and what becomes of it here. What
is refused is refused from this table, and ``docs/recbole-settings.md`` is written from it::

    python -m recbole_contrec.settings.recbole_keys
"""

from pathlib import Path
from typing import NamedTuple

HONOURED, REFUSED, NOTHING_READS = "honoured", "refused", "without meaning here"


class Key(NamedTuple):
    """A row of the table.

    Attributes:
        fate: honoured; refused (any other value than the default stops the run, ``text`` says why); or without meaning
            here (another value is told of).
        text: what it does, or the reason.
        shown: the test that shows it, ``file::function`` below ``tests/``.
        readers: whom it concerns, a word of :mod:`recbole_contrec.settings.readers`; empty for every model.
        elsewhere: what happens where a model does not read it: ``logged`` (the log names it) or ``refused``.
    """

    key: str
    fate: str
    text: str
    shown: str
    readers: str = ""
    elsewhere: str = "logged"


_RUN, _DATA, _FEATURES, _PLACE = (
    "settings/test_settings_of_runs.py::",
    "data/test_settings_of_data.py::",
    "data/test_settings_of_features.py::",
    "settings/test_choice_of_device.py::",
)
_PARTS, _METRICS, _SPLITS = "settings/test_parts.py::", "training/test_metrics_and_modes.py::", "data/test_splits.py::"
_TABLE = "settings/test_recbole_keys.py::test_what_is_refused_stops_a_run"
_SAID = "settings/test_recbole_keys.py::test_what_nothing_reads_is_told_of"
_PICKLED = (
    "data sets and loaders are not kept as pickled files, which can run code when they are read; what is slow to make "
    "is kept under checkpoint_dir/stages"
)
_ONE = "an option of the command line, or of torchrun: see docs/processes.md"


def _honoured(shown, readers, elsewhere, **texts):
    return [Key(key, HONOURED, text, shown, readers, elsewhere) for key, text in texts.items()]


TABLE: tuple[Key, ...] = (
    # where a run computes, and what it writes
    *_honoured(
        _PLACE + "test_one_gpu_or_the_cpu",
        "",
        "",
        gpu_id="the one GPU to compute on; '' is the CPU; several are refused",
        use_gpu="False computes on the CPU, which in RecBole it does not; True without a GPU is told of",
    ),
    *_honoured(
        _RUN + "test_where_things_are_written",
        "",
        "",
        checkpoint_dir="where folders of runs and finished stages go",
        state="how much is logged",
        show_progress="progress bars of every epoch",
    ),
    *_honoured(
        _RUN + "test_seed_and_order_of_batches",
        "",
        "",
        seed="of everything that is random, up to 2^32 - 1",
        reproducibility="deterministic kernels",
    ),
    Key(
        "shuffle",
        HONOURED,
        "training data in another order in every epoch; knowledge models always shuffle",
        _RUN + "test_seed_and_order_of_batches",
        "shuffled",
        "refused",
    ),
    Key(
        "worker",
        HONOURED,
        "processes that prepare batches; windows of whole histories are cut in this process, so that for "
        "those models it counts in evaluation",
        _RUN + "test_workers_change_nothing",
    ),
    Key(
        "data_path",
        HONOURED,
        "the folder that holds the data set's folder; ml-100k comes from RecBole where there is none",
        _DATA + "test_data_path_holds_for_ml_100k_too",
    ),
    Key("log_wandb", HONOURED, "log to Weights & Biases", _RUN + "test_wandb_gets_the_project"),
    Key("wandb_project", HONOURED, "the project there", _RUN + "test_wandb_gets_the_project"),
    *(
        Key(key, REFUSED, _PICKLED, _TABLE)
        for key in ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")
    ),
    Key("config_file", REFUSED, "the name is config_files", _TABLE),
    *(
        Key(key, HONOURED, "as on the command line", "settings/test_config.py::test_priority")
        for key in ("model", "dataset", "config_files")
    ),
    *(
        Key(key, REFUSED, _ONE, _TABLE)
        for key in ("nproc", "ip", "port", "world_size", "offset", "group_offset", "local_rank")
    ),
    # training
    *_honoured(
        _RUN + "test_length_and_steps_of_training",
        "",
        "",
        epochs="passes over the training data, at most",
        eval_step="epochs between two validations; 0 never validates",
        stopping_step="validations without progress after which training stops",
        train_batch_size="training examples a step",
        loss_decimal_place="digits of the loss in the log",
    ),
    *_honoured(
        _RUN + "test_the_optimizer",
        "",
        "",
        learner="the optimizer; an unknown one is refused, where RecBole takes Adam",
        learning_rate="its step size",
        weight_decay="its L2 penalty",
    ),
    Key(
        "clip_grad_norm",
        HONOURED,
        "{'max_norm': 1.0}, with norm_type where it is not 2; not with enable_scaler, since RecBole "
        "clips what is scaled",
        _RUN + "test_gradients_are_clipped",
    ),
    Key(
        "enable_amp",
        HONOURED,
        "mixed precision: bf16 for the models of this package, torch's default for RecBole's",
        _RUN + "test_mixed_precision",
    ),
    Key(
        "enable_scaler",
        HONOURED,
        "scales the loss in mixed precision on a GPU; bf16 needs none",
        _RUN + "test_mixed_precision",
        "scaled",
        "refused",
    ),
    Key(
        "train_neg_sample_args",
        HONOURED,
        "negatives of a training example: distribution, sample_num, alpha, dynamic, "
        "candidate_num; ~ where cross entropy scores the whole catalogue",
        _PARTS + "test_negatives_of_training",
        "negatives",
        "refused",
    ),
    Key("require_pow", HONOURED, "squares the penalty on embeddings", _SAID, "require_pow"),
    Key("reg_weight", HONOURED, "weight of the penalty on embeddings", _SAID, "reg_weight"),
    Key(
        "transform",
        HONOURED,
        "what is done to the item lists of a batch, by the models that read it",
        _FEATURES + "test_transform_is_for_models_that_read_it",
        "transform",
        "refused",
    ),
    Key("mask_ratio", HONOURED, "share of masked items", _SAID, "mask_ratio"),
    Key("ft_ratio", HONOURED, "share of rows that mask the last item only", _SAID, "ft_ratio"),
    # evaluation
    Key(
        "eval_args",
        HONOURED,
        "split, order, group_by and mode, merged part by part into the protocol of this package, which has one more "
        "split, GTS: two moments in time for all users",
        _SPLITS + "test_splits_as_in_recbole",
    ),
    Key(
        "repeatable",
        HONOURED,
        "whether items of the history may come again; sequential models need True",
        _SPLITS + "test_repeatable",
    ),
    Key(
        "metrics",
        HONOURED,
        "every metric of RecBole, rankings or clicks",
        _METRICS + "test_every_metric_gives_a_number",
    ),
    Key("topk", HONOURED, "cut-offs of the ranking metrics", _METRICS + "test_every_metric_gives_a_number"),
    Key(
        "valid_metric", HONOURED, "the metric that chooses the best epoch", _METRICS + "test_less_is_better_where_it_is"
    ),
    Key("valid_metric_bigger", REFUSED, "the metric knows whether more of it is better", _TABLE),
    Key("eval_batch_size", HONOURED, "rows a batch in evaluation", _METRICS + "test_batches_and_digits"),
    Key("metric_decimal_place", HONOURED, "digits of the metrics", _METRICS + "test_batches_and_digits"),
    Key(
        "tail_ratio",
        HONOURED,
        "what TailPercentage takes for the tail: a share, or above 1 a count",
        _METRICS + "test_tail_ratio",
    ),
    # files and columns
    *_honoured(
        _DATA + "test_separators_and_encoding",
        "",
        "",
        field_separator="between columns",
        seq_separator="inside a sequence",
        encoding="of the files",
    ),
    *_honoured(
        _DATA + "test_columns_by_other_names",
        "",
        "",
        USER_ID_FIELD="column of users, else found in the header",
        ITEM_ID_FIELD="column of items, else found in the header",
        TIME_FIELD="column of times, else found in the header",
    ),
    *_honoured(
        _DATA + "test_columns_by_other_names",
        "sequential",
        "logged",
        LIST_SUFFIX="ending of the columns of histories",
        ITEM_LIST_LENGTH_FIELD="column of their lengths",
        MAX_ITEM_LIST_LENGTH="items of a history that a model sees",
    ),
    Key("RATING_FIELD", HONOURED, "column of ratings, for models that learn from them", _SAID, "RATING_FIELD"),
    Key("LABEL_FIELD", HONOURED, "column of labels", _FEATURES + "test_labels_by_threshold", "labels"),
    Key(
        "threshold",
        HONOURED,
        "labels 1 from this value on, for models that learn from labels; it filters nothing",
        _FEATURES + "test_labels_by_threshold",
        "labels",
        "refused",
    ),
    Key("NEG_PREFIX", HONOURED, "prefix of the columns of negatives", _PARTS + "test_negatives_of_training", "pairs"),
    Key("POSITION_FIELD", NOTHING_READS, "no code of RecBole reads it", _SAID),
    Key(
        "seq_len",
        HONOURED,
        "entries of a sequence column that are kept, from the start",
        _DATA + "test_lengths_of_sequences",
    ),
    Key(
        "numerical_features",
        HONOURED,
        "float columns that are embedded, by models that read features",
        _FEATURES + "test_features_of_context_models",
        "features",
        "refused",
    ),
    Key(
        "discretization",
        HONOURED,
        "buckets of these columns",
        _FEATURES + "test_features_of_context_models",
        "features",
        "refused",
    ),
    # Of the time column as well, which single precision then keeps finer: every model reads its order.
    Key("normalize_field", HONOURED, "float columns brought to 0..1", _FEATURES + "test_features_of_context_models"),
    Key(
        "normalize_all",
        HONOURED,
        "all float columns brought to 0..1, times too",
        _FEATURES + "test_features_of_context_models",
    ),
    Key(
        "preload_weight",
        HONOURED,
        "vectors from a file, for models that read them",
        _FEATURES + "test_preloaded_weights_need_a_reader",
        "get_preload_weight",
        "refused",
    ),
    *_honoured(
        _DATA + "test_columns_that_are_loaded",
        "",
        "",
        load_col="columns to load by file, else those that are needed",
        unload_col="columns not to load of a file that is loaded whole",
        unused_col="columns that are dropped once the data are split",
        additional_feat_suffix="further files to load",
    ),
    # filters
    *_honoured(
        _DATA + "test_filters",
        "",
        "",
        val_interval="rows to keep: an interval for numbers, a list for tokens; other forms are refused, where "
        "RecBole filters nothing",
        user_inter_num_interval="users to keep, by interactions",
        item_inter_num_interval="items to keep, by interactions",
        rm_dup_inter="keep the first or the last of equal pairs",
    ),
    Key(
        "filter_inter_by_user_or_item",
        HONOURED,
        "drop interactions whose user or item its file lacks",
        _DATA + "test_interactions_without_an_item_are_dropped_or_kept",
    ),
    *_honoured(
        _DATA + "test_columns_share_ids",
        "",
        "",
        alias_of_user_id="columns with the ids of users",
        alias_of_item_id="columns with the ids of items",
    ),
    Key(
        "benchmark_filename",
        HONOURED,
        "data that come split, unfiltered; sequential models need item_id_list; not for whole "
        "histories, nor together with filters or a split",
        _SPLITS + "test_data_that_come_split",
    ),
    # knowledge graphs
    *_honoured(
        _DATA + "test_a_knowledge_graph",
        "knowledge",
        "logged",
        HEAD_ENTITY_ID_FIELD="column of heads",
        TAIL_ENTITY_ID_FIELD="column of tails",
        RELATION_ID_FIELD="column of relations",
        ENTITY_ID_FIELD="column of entities",
        kg_reverse_r="adds every relation turned round",
        entity_kg_num_interval="entities to keep, by triples",
        relation_kg_num_interval="relations to keep, by triples",
        alias_of_entity_id="columns with the ids of entities",
        alias_of_relation_id="columns with the ids of relations",
    ),
)

# Known from RecBole's code, but no settings: what a user most likely means by them.
DERIVED = {
    "device": "choose it by --gpu_id=0, or --use_gpu=False for the CPU",
    "valid_neg_sample_args": "sampled items are set by eval_args: --eval_args={'mode': {'valid': 'uni100'}}",
    "test_neg_sample_args": "sampled items are set by eval_args: --eval_args={'mode': {'test': 'uni100'}}",
    "neg_sampling": "it is called train_neg_sample_args since RecBole 1.1",
    "training_neg_sample_num": "it is called train_neg_sample_args since RecBole 1.1",
    "eval_setting": "it is called eval_args since RecBole 1.0",
    "split_ratio": "it is eval_args: --eval_args={'split': {'RS': [0.8, 0.1, 0.1]}}",
    "group_by_user": "it is a part of eval_args: --eval_args={'group_by': 'user'}",
    "single_spec": _ONE,
    "eval_type": "it follows from metrics",
    "MODEL_TYPE": "it follows from the model",
    "MODEL_INPUT_TYPE": "it follows from the model",
}

BY_KEY = {row.key: row for row in TABLE}
DOCUMENT = Path("docs") / "recbole-settings.md"  # of a checkout, in which this is run

_HEAD = """# RecBole's settings, one by one

Every key of RecBole 1.2.1's `overall.yaml`, `sample.yaml`, quick-start files and command line, and what becomes of it
here. *Honoured*: it does what it says, and the named test below `tests/` shows it; where a model does not read it,
the log says so or the run stops. *Refused*: another value than the default stops the run before training. *Without
meaning here*: nothing reads it; another value is told of. Settings of single models, and those of this package, are
listed by `--settings --model=NAME`.

Written by `python -m recbole_contrec.settings.recbole_keys`.

| setting | here | what it does, or why not | models that do not read it | shown by |
| --- | --- | --- | --- | --- |
"""


def as_markdown() -> str:
    """The table as a page."""
    rows = [
        f"| `{row.key}` | {row.fate} | {row.text} | {row.elsewhere if row.readers else ''} | `{row.shown}` |"
        for row in TABLE
    ]
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(as_markdown(), encoding="utf-8")
