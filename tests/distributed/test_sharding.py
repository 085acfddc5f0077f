"""A language model of which each process holds a part: the gradients, runs, rankings and files of a whole one."""

from pathlib import Path

import pytest

from recbole_contrec.errors import UserError
from recbole_contrec.storage import checkpoint
from tests.distributed.test_ends import losses, stopped_at_step
from tests.distributed.test_training import both, still
from tests.helpers.files import STORIES
from tests.helpers.options import TINY_OF, changed

LLM = (f"--llm={STORIES}", "--shard_backbone=True")
ADAPTERS, ALL = ("--lora_rank=3",), ("--lora_rank=0",)  # three rows are no even number


@pytest.mark.parametrize("model, more", [("ContRec", ADAPTERS), ("TokenRec", ADAPTERS), ("TokenRec", ALL)])
def test_gradients_are_those_of_a_whole_model(together, tiny, workplace, model, more):
    """Frozen weights and adapters, or all weights; in parts of a batch; processes with other numbers of passes."""
    found = both(together("sharded_gradients", workplace, model, still(model, tiny, *LLM, *more)))
    difference, size = found["gradient"]
    assert found["in parts"] > 10 and size > 0 and difference < 1e-4 * size


@pytest.mark.parametrize("more", (ADAPTERS, ALL))
def test_a_run_trains_and_keeps_what_a_whole_model_does(together, tiny, workplace, run_tiny, more):
    """Losses, clipping, the average of the weights, rankings; checkpoints of the same names and sizes."""
    arguments = still("TokenRec", tiny, *LLM, *more, "--clip_grad_norm={'max_norm':0.1}", "--ema_decay=0.9")
    in_parts = both(together("run", workplace, "TokenRec", [*arguments, "--run_name=parts"]))
    whole = run_tiny("TokenRec", *arguments, "--run_name=whole")
    assert [point["score"] for point in in_parts["curve"]] == pytest.approx(
        [point["score"] for point in whole["curve"]], abs=1e-3
    )
    assert in_parts["test_result"] == pytest.approx(whole["test_result"], abs=1e-3)
    for name in ("last", "best"):
        one, two = (checkpoint.load(workplace / "saved" / run / f"{name}.safetensors") for run in ("whole", "parts"))
        assert one.tensors.keys() == two.tensors.keys()
        for key, tensor in one.tensors.items():
            assert tensor.shape == two.tensors[key].shape, key
            if tensor.is_floating_point() and tensor.numel():
                assert (tensor - two.tensors[key]).abs().max() < 1e-3, key
    assert losses(workplace / "saved" / "parts") == pytest.approx(losses(workplace / "saved" / "whole"), rel=1e-4)
    files = [{p.name for p in (workplace / "saved" / run).rglob("*")} for run in ("whole", "parts")]
    assert files[0] == files[1] and ("adapter" in files[1]) == (more == ADAPTERS)


def test_a_run_goes_on_in_another_number_of_processes(together, tiny, workplace, run_tiny):
    """From two to one and from one to two, with the state of the optimizer and of the average."""
    arguments = still("TokenRec", tiny, *LLM, *ADAPTERS, "--epochs=3", "--train_batch_size=200", "--run_name=run")
    run_tiny("TokenRec", *arguments, "--run_name=whole")
    expected = losses(workplace / "saved" / "whole")
    steps = (
        1
        + int(checkpoint.load(workplace / "saved" / "whole" / "last.safetensors").tensors["optimizer.optimizer.0.step"])
        // 3
    )  # the first one of the second epoch
    together("run", workplace, "TokenRec", arguments, None, (1, steps))
    assert checkpoint.load(workplace / "saved" / "run" / "last.safetensors").record["epoch"] == 0
    run_tiny("TokenRec", *arguments, resume="saved/run")
    assert losses(workplace / "saved" / "run") == pytest.approx(expected, rel=1e-4)
    arguments[-1] = "--run_name=back"
    with stopped_at_step(steps), pytest.raises(KeyboardInterrupt):
        run_tiny("TokenRec", *arguments)
    both(together("run", workplace, "TokenRec", arguments, "saved/back"))
    assert losses(workplace / "saved" / "back") == pytest.approx(expected, rel=1e-4)


def test_rankings_and_answers_are_those_of_a_whole_model(together, tiny, workplace):
    """Processes whose users take other numbers of passes, or whose answers are longer."""
    from tests.helpers.together import evaluation

    more = ("--answer_weight=0.1", "--text_weight=0.5", "--text_bonus=0.5", "--eval_batch_size=7", "--user_tokens=0")
    arguments = changed([*TINY_OF["ContRec"], f"--data_path={tiny}"], (*LLM, *ADAPTERS, *more))
    alone = evaluation("ContRec", arguments, False)
    (workplace / "ranks" / "test_ranks.npz").unlink()
    found = both(together("evaluation", workplace, "ContRec", arguments, True))
    assert found["result"] == pytest.approx(alone["result"], abs=1e-4) and found["ranks"] == alone["ranks"]


@pytest.mark.parametrize(
    "model, more, message",
    [
        ("ContRec", (), "shard_backbone: for a pretrained language model only, set llm as well"),
        ("ContRec", ("--gradient_checkpointing=True",), "does not go with gradient_checkpointing=True"),
        ("ContRec", ("--llm_dtype=float16",), "does not go with llm_dtype=float16"),
        ("SIIT-states", (), "does not go with self_improve=True"),
    ],
)
def test_what_is_not_known_to_work_is_refused(run_tiny, model, more, message):
    llm = (f"--llm={STORIES}",) if more or model != "ContRec" else ()
    with pytest.raises(UserError, match=message):
        run_tiny(model, "--shard_backbone=True", *llm, *more)
    assert not Path("saved").exists()
