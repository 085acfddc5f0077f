"""What processes send each other in a step."""

import pytest

from benchmarks.exchange import Exchange, counted, main
from tests.helpers.files import STORIES
from tests.helpers.options import TINY, changed


def test_a_ring_sends_all_parts_but_one_twice():
    exchange = Exchange(seconds=1.0, replicated=800)
    assert exchange.sent(1) == 0 and exchange.sent(2) == 800 and exchange.sent(8) == 1400
    assert exchange.step(8, 14_000) == pytest.approx(1 / 8 + 0.1)


def test_parts_are_put_together_twice_a_pass():
    exchange = Exchange(1.0, replicated=0, blocks=800, trained=80, passes=3)
    assert exchange.sent(8) == pytest.approx(7 / 8 * 3 * (1600 + 80))


def test_so_long_a_step_reaches_the_share():
    exchange = Exchange(1.0, replicated=800)
    slow = exchange._replace(seconds=exchange.needed(8, 1e3, 0.75))
    assert slow.seconds / (8 * slow.step(8, 1e3)) == pytest.approx(0.75)


def test_what_is_counted_is_what_is_trained(staged):
    model = staged("TokenRec", f"--llm={STORIES}", "--lora_rank=2").model
    whole, parts = counted(model, False), counted(model, True)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert whole.replicated == 4 * sum(1 + p.numel() for p in trained) and whole.blocks == whole.trained == 0
    adapters = [p for p in model.backbone.parameters() if p.requires_grad]
    assert parts.trained == 4 * sum(p.numel() for p in adapters) < parts.blocks
    assert whole.replicated - parts.replicated == parts.trained + 4 * len(adapters)


def test_the_command_measures_a_step(tiny, capsys):
    settings = changed(TINY, (f"--data_path={tiny}", "--train_batch_size=50"))
    ways = main(["--model=SASRecAll", "--dataset=tiny", "--steps=1", *settings])
    assert ways["whole"].seconds > 0 and "network, 100 Gbit/s" in capsys.readouterr().out
