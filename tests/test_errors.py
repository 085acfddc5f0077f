"""recbole_contrec.errors: which names are offered in place of a misspelt one."""

from recbole_contrec.errors import did_you_mean, nearest


def test_nearest_ignores_case_dashes_and_reads_initials():
    keys = ["learning_rate", "train_batch_size", "eval_batch_size", "epochs"]
    assert nearest("learning-rate", keys)[0] == "learning_rate"
    assert nearest("LearningRate", keys)[0] == "learning_rate"
    assert nearest("lr", keys) == ["learning_rate"]
    assert set(nearest("batch_size", keys)) >= {"train_batch_size", "eval_batch_size"}
    assert nearest("epoch", keys, n=1) == ["epochs"]
    assert nearest("zzz", keys) == []


def test_did_you_mean_is_a_phrase_or_nothing():
    assert did_you_mean("epoch", ["epochs"]) == " (did you mean epochs?)"
    assert did_you_mean("batch_size", ["train_batch_size", "eval_batch_size"]).count(" or ") == 1
    assert did_you_mean("zzz", ["epochs"]) == ""
