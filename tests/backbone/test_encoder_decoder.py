"""T5 reads vectors in one pass: all of the prompt, none of the padding."""

import logging

import pytest
import torch

from recbole_contrec.backbone import EncoderDecoder


@pytest.fixture
def t5():
    torch.manual_seed(0)
    return EncoderDecoder(8, n_layers=2, n_heads=2, decoder_query_tokens=3).double().eval()


def test_padding_changes_nothing(t5):
    inputs, length = torch.randn(3, 10, 8, dtype=torch.float64), torch.tensor([4, 10, 7])
    states = t5(inputs, length)
    assert states.shape == (3, 3, 8)
    for row in range(3):
        alone = t5(inputs[row : row + 1, : length[row]], length[row : row + 1])
        torch.testing.assert_close(states[row : row + 1], alone)
    garbage = inputs.clone()
    garbage[0, 4:], garbage[2, 7:] = 1e3, -1e3
    torch.testing.assert_close(t5(garbage, length), states)


def test_every_state_sees_the_whole_prompt_in_its_order(t5):
    inputs, length = torch.randn(1, 6, 8, dtype=torch.float64), torch.tensor([6])
    states = t5(inputs, length)
    for place in range(6):
        changed = inputs.clone()
        changed[0, place] += 1
        assert (t5(changed, length) - states).abs().amax(2).gt(1e-6).all()
    assert not torch.allclose(t5(inputs[:, [1, 0, 2, 3, 4, 5]], length), states)


def test_the_answer_is_one_pass_over_learned_vectors(t5):
    calls = []
    t5.transformer.decoder.register_forward_hook(lambda *_: calls.append(1))
    inputs, length = torch.randn(2, 5, 8, dtype=torch.float64), torch.tensor([5, 5])
    states = t5(inputs, length)
    assert len(calls) == 1
    with torch.no_grad():
        t5.answer[2] += 1
    after = t5(inputs, length)
    torch.testing.assert_close(after[:, :2], states[:, :2])  # the decoder is causal
    assert not torch.allclose(after[:, 2], states[:, 2])


def test_every_parameter_learns_and_there_is_no_word_table(t5):
    t5(torch.randn(2, 12, 8, dtype=torch.float64), torch.tensor([12, 3])).square().sum().backward()
    without = [name for name, p in t5.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert not any("shared" in name or "embed_tokens" in name for name in t5.state_dict())


def test_nothing_is_said_of_words_that_it_does_not_have(caplog, monkeypatch):
    """transformers warns of a configuration whose end of text is no word of it."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    EncoderDecoder(8, n_layers=1, n_heads=2, decoder_query_tokens=1)
    assert not caplog.records


def test_errors_say_what_is_allowed():
    with pytest.raises(ValueError, match="n_heads=3 must divide hidden_size=8"):
        EncoderDecoder(8, 1, 3, 4)
