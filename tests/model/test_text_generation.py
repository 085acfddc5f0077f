"""Histories are read once, whatever is asked of them, and that gives what separate passes give."""

import pytest
import torch

from recbole_contrec.backbone import Encoded
from recbole_contrec.errors import UserError
from recbole_contrec.retrieval import TextEvidence
from tests.helpers.files import STORIES

BACKBONES = {"compact": ("--vocabulary_size=300", "--n_layers=2"), "pretrained": (f"--llm={STORIES}", "--lora_rank=2")}
WORDS = (
    "--prompt_text=words",
    "--answer_weight=0.1",
    "--answer_template={title}",
    "--answer_max_tokens=8",
    "--answer_beams=1",
    "--instructions=['after all of these somebody liked']",
)
HEARD = ("--text_weight=0.3", "--text_bonus=0.2")


@pytest.fixture
def speaking(staged):
    """A function (model, backbone, *arguments) -> model and a batch; what it says differs by history."""

    def build(model, backbone, *arguments):
        loaded = staged(model, *BACKBONES[backbone], *WORDS, *arguments)
        torch.manual_seed(0)
        for key, parameter in loaded.model.backbone.named_parameters():
            if backbone == "compact" and parameter.dim() > 1 or "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.2)
        return loaded.model.eval(), next(iter(loaded.data.test))[0][:6]

    return build


class Passes:
    """Counts the rows of prompts that a backbone reads inside the block; steps behind them do not count."""

    def __init__(self, backbone, monkeypatch):
        self.rows, self.stepping = 0, False
        for name in ("start", "states_at", "forward"):
            monkeypatch.setattr(backbone, name, self._counted(getattr(backbone, name)))

    def _counted(self, function):
        def call(inputs, *args, **kwargs):
            outer, self.stepping = self.stepping, True  # one of them may call another
            self.rows += 0 if outer else len(inputs)
            try:
                return function(inputs, *args, **kwargs)
            finally:
                self.stepping = outer

        return call


@torch.no_grad()
def heard_alone(model, items, user):
    """Condition [D], log-probabilities of all texts [texts] and words of the answer after one history [L], each by
    passes over the whole prompt."""
    answers, backbone, end = model.language.answers, model.backbone, model.language.vocabulary.end
    prompt = model.history.layout(items[None], user[None])
    condition = model.history.condition.after_items(prompt.after_items(backbone(prompt.vectors)))[0, -1]
    texts = [int((answers.text_of == text).nonzero()[0]) for text in range(1, int(answers.text_of.max()) + 1)]
    begins = prompt.ends[:, -1:].expand(-1, len(texts))
    read = answers.read_words(backbone, prompt.vectors, begins, Encoded(*(part[None] for part in answers.about(texts))))
    chosen = backbone.word_logits(read.answer_states).log_softmax(-1).gather(3, read.numbers[..., None]).squeeze(3)
    log_probs = (chosen * read.real).sum(2)[0]
    words, states = [], []
    while len(words) < answers.longest and end not in words:
        own = backbone.read(torch.tensor(words, dtype=torch.long))
        whole = torch.cat([prompt.vectors[0, : prompt.ends[0, -1] + 1], answers.begin[None], own])[None]
        states.append(backbone(whole)[0, -1])
        words.append(int(backbone.word_logits(states[-1]).argmax()))
    if model.answering.settings.before_preference:
        condition = model.history.condition.after_answers(torch.stack(states).mean(0))
    return condition, log_probs, torch.tensor(words + [end] * (answers.longest - len(words)))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    "model, arguments",
    [
        ("ContRec", ()),
        ("ContRec", ("--condition_on=answer",)),
        ("ContRec", ("--item_positions=each", "--user_tokens=0")),
        ("DeftRec", ("--condition_pooling=mean",)),
        ("DeftRec", ("--condition_pooling=last",)),
        ("DeftRec", ("--condition_on=answer",)),
    ],
)
def test_one_reading_gives_what_separate_passes_give(speaking, model, arguments, backbone):
    model, batch = speaking(model, backbone, *arguments, *HEARD)
    alone = [
        heard_alone(model, items[:length], user)
        for items, length, user in zip(batch["item_id_list"], batch["item_length"], batch["user_id"])
    ]
    conditions, log_probs, words = (torch.stack(parts) for parts in zip(*alone))
    encoding = model.encode_histories(batch, answer=True)
    torch.testing.assert_close(encoding.conditions, conditions, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoding.log_probs[:, 1:], log_probs, atol=1e-3, rtol=1e-4)
    assert torch.equal(encoding.answers, words) and len(words.unique(dim=0)) > 1
    categories, text_of = model.language.categories, model.language.answers.text_of
    said = categories.named(model.language.vocabulary.decode(words))
    text = TextEvidence(encoding.log_probs, text_of, said, categories.category_of)
    expected = model.retrieval.scores(
        model.preferences(conditions), model.item_vectors.weight, batch["item_id_list"], text=text
    )
    torch.testing.assert_close(model.full_sort_predict(batch), expected, atol=1e-3, rtol=1e-3)
    assert model.answers(batch) == model.answers(batch, encoding) == model.language.vocabulary.decode(words)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    "model, arguments",
    [
        ("ContRec", ("--condition_on=answer",)),
        ("ContRec", ()),
        ("DeftRec", ("--condition_pooling=mean",)),
        ("DeftRec", ("--condition_pooling=last",)),
    ],
)
def test_every_history_is_read_once(speaking, monkeypatch, model, arguments, backbone):
    model, batch = speaking(model, backbone, *arguments, *HEARD)
    passes, plain = Passes(model.backbone, monkeypatch), model.top_k(batch, 5)
    assert passes.rows == len(batch)

    def all_at_once(batch):
        encoding = model.encode_histories(batch, answer=True)
        return model.answers(batch, encoding), model.top_k(batch, 5, encoding=encoding)

    for function in (all_at_once, model.full_sort_predict, model.predict, model.generate_preferences, model.answers):
        passes.rows = 0
        function(batch)
        assert passes.rows == len(batch), function
    torch.testing.assert_close(all_at_once(batch)[1], plain)


def test_what_is_not_asked_for_is_not_computed(speaking, monkeypatch):
    model, batch = speaking("ContRec", "compact", *HEARD)
    monkeypatch.setattr(model.backbone, "step", None)
    encoding = model.encode_histories(batch, scores=False)
    assert encoding.log_probs is None and encoding.answers is None and len(encoding.conditions) == len(batch)


def test_a_list_with_answers_reads_every_history_once(staged, monkeypatch):
    from recbole_contrec.recommendation import recommend

    loaded = staged("ContRec", *BACKBONES["compact"], *WORDS, *HEARD)
    loaded.model.eval()
    passes = Passes(loaded.model.backbone, monkeypatch)
    table = recommend(loaded, users=["u1", "u2", "u3"], k=4)
    assert passes.rows == 3 and len(table) == 12 and "answer" in table


@pytest.mark.parametrize("arguments", [(), HEARD, ("--num_samples=3", "--sampling_steps=2")])
def test_a_history_with_many_candidates_is_read_once(speaking, monkeypatch, arguments):
    """As RecBole asks where items are sampled: a row a candidate."""
    model, batch = speaking("ContRec", "compact", *arguments)
    many = batch[torch.arange(len(batch)).repeat_interleave(4)]
    many.interaction["item_id"] = torch.arange(1, 1 + len(many))
    scores = model.full_sort_predict(batch).repeat_interleave(4, dim=0)
    passes = Passes(model.backbone, monkeypatch)
    torch.testing.assert_close(
        model.predict(many), scores[torch.arange(len(many)), many["item_id"]], atol=1e-4, rtol=1e-4
    )
    assert passes.rows == len(batch)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("arguments", [(), HEARD])
def test_long_prompts_are_read_a_few_at_a_time(speaking, monkeypatch, backbone, arguments):
    model, batch = speaking("ContRec", backbone, *arguments)
    whole, read, layout = model.full_sort_predict(batch), [], model.history.layout

    def counted(*histories):
        prompt = layout(*histories)
        read.append(prompt.vectors.shape[:2])
        return prompt

    monkeypatch.setattr(model.history, "layout", counted)
    monkeypatch.setattr(type(model.backbone), "POSITIONS", 100)
    torch.testing.assert_close(model.full_sort_predict(batch), whole, atol=1e-4, rtol=1e-4)
    assert len(read) > 1 and all(rows == 1 or rows * positions <= 100 for rows, positions in read)


# how answers are written


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_likeliest_answer_of_several_beams_is_said(speaking, backbone):
    greedy, batch = speaking("ContRec", backbone, "--answer_beams=1")
    wide = speaking("ContRec", backbone, "--answer_beams=4")[0]

    def log_prob(model):  # of what it says, by passes over whole prompts
        said, found = model.encode_histories(batch, scores=False, answer=True).answers, []
        for items, length, user, words in zip(batch["item_id_list"], batch["item_length"], batch["user_id"], said):
            prompt, end = model.history.layout(items[None, :length], user[None]), model.language.vocabulary.end
            lengths = torch.tensor([[min(words.tolist().index(end) + 1 if end in words else len(words), len(words))]])
            read = model.language.answers.read_words(
                model.backbone, prompt.vectors, prompt.ends[:, -1:], Encoded(words[None, None], lengths)
            )
            found.append(-float(read.loss(model.backbone).detach()) * int(lengths))
        return torch.tensor(found)

    better = log_prob(wide) - log_prob(greedy)
    assert (better > -1e-3).all() and better.max() > 0.1


def test_drawn_answers_are_the_same_whoever_else_is_asked(speaking):
    model, batch = speaking("ContRec", "compact", "--answer_temperature=1.5", "--answer_beams=1")
    together = model.answers(batch)
    assert [model.answers(batch[place : place + 1])[0] for place in range(len(batch))] == together
    likeliest = speaking("ContRec", "compact", "--answer_beams=1")[0].answers(batch)
    other = speaking("ContRec", "compact", "--answer_temperature=1.5", "--answer_beams=1", "--seed=7")[0]
    assert together != likeliest and len({tuple(said) for said in (together, likeliest, other.answers(batch))}) == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--answer_temperature=0.7", "--answer_beams=2"), "set answer_beams=1 as well"),
        (
            ("--answer_weight=0", "--answer_template={category}", "--answer_max_tokens=16", "--answer_temperature=0.7"),
            "answer_beams, answer_temperature: nothing is answered",
        ),
    ],
)
def test_ways_to_answer_that_go_together(staged, arguments, message):
    with pytest.raises(UserError, match=message):
        staged("ContRec", *BACKBONES["compact"], *WORDS, *arguments)


# the instruction, which is the same in all rows


def test_a_prompt_knows_what_its_rows_share(staged):
    model = staged(
        "ContRec", *BACKBONES["compact"], "--instructions=['one two three four five', 'six']", "--user_tokens=2"
    ).model
    users, items = torch.tensor([1, 2, 3]), torch.tensor([[3, 4], [5, 6], [7, 0]])
    layout, words = model.eval().history.layout(items, users), model.prompt.instructions.length
    assert layout.shared == 1 + words == model.prompt.prefix_length - 2
    assert layout.vectors[:, : layout.shared].eq(layout.vectors[:1, : layout.shared]).all()
    assert not layout.vectors[0, layout.shared].equal(layout.vectors[1, layout.shared])  # tokens of the user
    assert model.train().history.layout(items, users).shared == 1  # each row has an instruction of its own


def test_an_empty_history_ends_with_a_position_of_its_own(staged):
    model = staged("ContRec", *BACKBONES["compact"], *WORDS, "--user_tokens=0").model.eval()
    items = torch.tensor([[0, 0], [5, 6], [7, 0]])
    layout = model.history.layout(items, torch.tensor([1, 2, 3]))
    assert layout.shared == model.prompt.prefix_length - 1 <= layout.ends.min()
    together = model.history.conditions(items, torch.tensor([1, 2, 1]), torch.tensor([1, 2, 3]))
    alone = model.history.conditions(items[:1], torch.tensor([1]), torch.tensor([1]))
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("arguments", [(), HEARD])
def test_an_instruction_read_once_changes_no_score(speaking, monkeypatch, backbone, arguments):
    model, batch = speaking("ContRec", backbone, "--instructions=['" + "a word and another " * 5 + "']", *arguments)
    once, said = model.full_sort_predict(batch), model.answers(batch)
    monkeypatch.setattr(type(model.prompt), "shared", 0)
    torch.testing.assert_close(once, model.full_sort_predict(batch), atol=1e-4, rtol=1e-4)
    assert said == model.answers(batch)


def test_likelihoods_of_many_texts_are_computed_for_few_rows_at_once(speaking, monkeypatch):
    model, batch = speaking("ContRec", "compact", "--text_weight=0.5")
    scores, answers = model.full_sort_predict(batch), model.language.answers
    rows, layout = [], model.history.layout
    monkeypatch.setattr(
        model.history, "layout", lambda item_seq, *rest: (rows.append(len(item_seq)), layout(item_seq, *rest))[1]
    )
    monkeypatch.setattr(answers, "PLACES", 1)
    torch.testing.assert_close(model.full_sort_predict(batch), scores)
    assert rows == [1] * len(batch)
    monkeypatch.undo()
    assert answers.rows_at_once(100) == answers.PLACES // (answers.beginnings * (100 + answers.beginnings)) > len(batch)
