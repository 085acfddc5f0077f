"""Users and items that were not in training: their vectors, and what models make of them."""

import numpy as np
import pytest
import torch

from recbole_contrec import fold_in_interactions, fold_in_texts, load_data_and_model, recommend
from recbole_contrec.errors import UserError
from recbole_contrec.model.tokenrec import TokenRec
from recbole_contrec.tokenizer import CollaborativeVectors, FoldIn, ItemFoldIn, history_means, standardise, svd_vectors
from tests.helpers.files import STORIES

USERS, ITEMS, SIZE = 60, 40, 8


@pytest.fixture
def pairs():
    """Users 1 to 59 and items 1 to 38 with 3 to 12 pairs a user; item 39 has none."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, USERS), rng.integers(3, 13, USERS - 1))
    return users, rng.integers(1, ITEMS - 1, len(users))


def histories_of(pairs, rows):
    """Partners of every row, padded with zeros."""
    found = [pairs[1][pairs[0] == row] for row in range(rows)]
    table = torch.zeros(rows, max(map(len, found)), dtype=torch.long)
    for row, partners in enumerate(found):
        table[row, : len(partners)] = torch.from_numpy(partners)
    return table


@pytest.fixture
def vectors(pairs):
    found = svd_vectors(*pairs, USERS, ITEMS, SIZE)
    return standardise(found.users), standardise(found.items)


def test_folding_a_training_user_or_item_in_gives_back_its_svd_vector(pairs, vectors):
    users, items = vectors
    fold_in = FoldIn(ITEMS, SIZE)
    fold_in.fit(users, items, *pairs)
    torch.testing.assert_close(fold_in(histories_of(pairs, USERS)), users, atol=2e-4, rtol=0)
    of_items = FoldIn(USERS, SIZE)
    of_items.fit(items, users, *pairs[::-1])
    torch.testing.assert_close(of_items(histories_of(pairs[::-1], ITEMS)), items, atol=2e-4, rtol=0)


def test_order_repetition_padding_and_unknown_partners_change_nothing(pairs, vectors):
    fold_in = FoldIn(ITEMS, SIZE)
    fold_in.fit(*vectors, *pairs)
    expected = fold_in(torch.tensor([[3, 7, 11]]))
    assert not torch.allclose(expected, fold_in(torch.tensor([[3, 7, 12]])), atol=0.01)
    for history in ([11, 3, 7], [3, 7, 11, 7, 3], [0, 3, 0, 7, 11, 0], [3, 39, 7, 11]):
        torch.testing.assert_close(fold_in(torch.tensor([history])), expected)
    assert not fold_in(torch.tensor([[0, 0], [39, 0]])).any()  # nothing known is no vector


def test_vectors_that_are_no_svd_are_fitted_closely(pairs):
    """Means of given item vectors are nearly linear in what the map reads; noise around them is not learned."""
    items = torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))
    items[0] = 0
    users = standardise(history_means(*pairs, items, USERS))
    fold_in = FoldIn(ITEMS, SIZE)
    fold_in.fit(users, standardise(items), *pairs)
    error = (fold_in(histories_of(pairs, USERS)) - users)[1:].square().mean()
    assert error < 0.25  # of a variance of 1


def test_an_item_is_found_by_the_first_of_its_users():
    """Items of two groups, popular and rare in each, whose users come from one group: three users of a popular item
    lead to where such items lie on average; without the correction, to a vector half as long."""
    rng = np.random.default_rng(0)
    group = np.arange(400) % 2
    pairs = [
        (user, item)
        for item in range(1, 121)
        for user in rng.choice(
            np.flatnonzero(group == item % 2)[1:], (70 if item < 20 else 60) if item % 4 < 2 else 3, replace=False
        )
    ]
    users, items = np.array(pairs).T
    vectors = CollaborativeVectors(*map(standardise, svd_vectors(users, items, 400, 121, SIZE)))
    fold_in = ItemFoldIn(vectors, users, items, seed=0)
    popular = [item for item in range(1, 120) if item % 4 < 2]
    first = [torch.from_numpy(users[items == item][:3]) for item in popular]
    truth = vectors.items[popular]
    raw, corrected = fold_in(first, early=False), fold_in(first, early=True)
    assert (corrected - truth).square().mean() < 0.7 * (raw - truth).square().mean()
    assert raw.norm(dim=1).mean() < 0.6 * truth.norm(dim=1).mean()
    again = [torch.cat([some, some[:1], torch.zeros_like(some)]) for some in first]
    torch.testing.assert_close(fold_in(again, early=True), corrected)
    nobody, most, everybody = torch.zeros(2, dtype=torch.long), torch.arange(1, 66), torch.arange(1, 400)
    found = fold_in([nobody, most, everybody, first[0]], early=True)
    assert not found[0].any() and fold_in([], early=True).shape == (0, SIZE)
    torch.testing.assert_close(found[3], corrected[0])
    # nine items have as many as the second, none as the third: too few to learn from
    torch.testing.assert_close(found[1:3], fold_in([most, everybody], early=False))
    some = vectors._replace(items=vectors.items.clone())
    some.items[61:] = 0  # of half of the items training knows nothing: they draw no other towards zero
    known = ItemFoldIn(some, users, items, seed=0)(first[:30], early=True)
    assert known.norm(dim=1).mean() > 0.8 * corrected[:30].norm(dim=1).mean()


@pytest.mark.parametrize("model", ["ContRec", "DeftRec", "TokenRec"])
def test_a_new_user_with_a_training_history_reads_the_tokens_of_its_user(staged, model):
    """With a width of 16 the history of a training user, folded in, is that user."""
    loaded = staged(model)
    recommender = loaded.model.eval()
    histories = loaded.data.train.histories
    users = torch.from_numpy(histories.users[:20])
    sequences = torch.zeros(20, 30, dtype=torch.long)
    for row in range(20):
        items = histories.items[histories.offsets[row] : histories.offsets[row + 1]]
        sequences[row, : len(items)] = torch.from_numpy(items)
    known = recommender.users(users, sequences)
    new = recommender.users(torch.zeros_like(users), sequences)
    torch.testing.assert_close(new, known, atol=1e-3, rtol=0)
    assert not torch.allclose(new[:1], new[1:2], atol=0.01)
    nothing = recommender.users(torch.zeros_like(users), torch.zeros_like(sequences))
    torch.testing.assert_close(nothing, nothing[:1].expand_as(nothing))  # the stand-in


@pytest.mark.parametrize("model", ["ContRec", "TokenRec"])
def test_folding_in_can_be_left_out(staged, model):
    loaded = staged(model, "--fold_in=False")
    nobody, sequences = torch.zeros(2, dtype=torch.long), torch.tensor([[3, 4, 5], [6, 7, 8]])
    tokens = loaded.model.eval().users(nobody, sequences)
    assert torch.equal(tokens[0], tokens[1])


# items

MODELS = ("ContRec", "DeftRec", "TokenRec")


@pytest.fixture
def trained(run_tiny):
    """A function model -> LoadedRun of a short run."""

    def build(model="ContRec", *arguments):
        return load_data_and_model(run_tiny(model, *arguments)["checkpoint"])

    return build


def users_of_item(loaded, number):
    """Names of the users who had the item in training."""
    users, items = loaded.data.train.dataset.histories.pairs()
    return loaded.data.dataset.id2token("user_id", np.unique(users[items == number])).tolist()


def tokens_of(loaded, *items):
    """What the language model reads for some items, without their learned vectors."""
    model = loaded.model
    numbers = torch.tensor([loaded.data.dataset.field2token_id["item_id"][item] for item in items])
    return model.items.table.codes[numbers] if isinstance(model, TokenRec) else model.items.table.weight[numbers]


@pytest.mark.parametrize("model", MODELS)
def test_an_item_with_the_users_of_another_gets_its_tokens_and_is_recommended(trained, model):
    loaded = trained(model, "--epochs=5", "--learning_rate=0.01", "--new_item_exposure=~")
    before, trainer = recommend(loaded, k=5), loaded.trainer
    lengths = loaded.model.item_vectors.weight[
        torch.from_numpy(np.unique(loaded.data.train.dataset.histories.items))
    ].norm(dim=1)
    users = users_of_item(loaded, loaded.data.dataset.field2token_id["item_id"]["i7"])
    fold_in_interactions(loaded, {"twin of i7": users}, early=False)
    twin, original = tokens_of(loaded, "twin of i7", "i7")
    torch.testing.assert_close(twin, original, atol=1e-3, rtol=0)
    torch.testing.assert_close(loaded.model.item_vectors.weight[-1].norm(), lengths.mean())
    assert loaded.trainer is not trainer  # whose optimizer and average hold the tables of before
    batch = next(iter(loaded.data.test))[0]
    scores = loaded.model.full_sort_predict(batch)
    assert scores.shape[1] == loaded.data.dataset.item_num == loaded.model.n_items
    after = recommend(loaded, k=loaded.data.dataset.item_num)
    assert set(after.item_id) >= set(before.item_id) | {"twin of i7"}
    kept = after[after.item_id != "twin of i7"].groupby("user_id").head(5)
    assert kept.item_id.tolist() == before.item_id.tolist()  # the known items keep their order
    assert recommend(loaded, histories=[["twin of i7", "i8"]], k=3).item_id.nunique() == 3


@pytest.mark.parametrize("model", MODELS)
def test_an_item_is_folded_in_by_its_text(trained, model):
    loaded = trained(model)
    before = loaded.model.n_items
    assert fold_in_texts(loaded, {"new": "Title of 7 odd kind", "other": "Title of 30 even kind"}) == ["new", "other"]
    assert loaded.data.dataset.item_num == loaded.model.n_items == before + 2
    vectors = loaded.model.item_vectors.weight
    assert torch.isfinite(vectors).all() and vectors[before].any()
    assert not torch.equal(*tokens_of(loaded, "new", "other"))
    assert loaded.trainer.evaluate(loaded.data.test, load_best_model=False)["ndcg@10"] > 0


@pytest.mark.parametrize("arguments", [(), (f"--text_encoder={STORIES}",)])
def test_the_text_of_a_new_item_is_compared_as_those_of_others(trained, arguments):
    loaded = trained("ContRec", "--text_similarity=4", "--epochs=1", *arguments)
    numbers = loaded.data.dataset.field2token_id["item_id"]
    fold_in_texts(loaded, {"new": "Title of 31 odd kind"})
    cosines = loaded.model.text_vectors @ loaded.model.text_vectors[numbers["new"]]
    assert cosines[numbers["i31"]] > 0.9 and set(cosines.topk(2).indices.tolist()) == {numbers["new"], numbers["i31"]}
    fold_in_interactions(loaded, {"without": users_of_item(loaded, numbers["i31"])})
    assert not loaded.model.text_vectors[numbers["without"]].any()


def test_texts_of_the_data_are_compared_as_training_left_them(tiny, trained):
    """An item that nobody took has its text compared with all others already."""
    with (tiny / "tiny" / "tiny.inter").open("a") as file:
        file.write("".join(f"u{user}\ti6{user}\t3\t99\n" for user in (0, 1)))  # a test target is all they are
    loaded = trained("ContRec", "--text_similarity=4", "--epochs=1")
    row = loaded.data.dataset.field2token_id["item_id"]["i61"]
    before = loaded.model.text_vectors.clone()
    assert before[row].any() and {"i60", "i61"} <= set(fold_in_texts(loaded))
    assert torch.equal(loaded.model.text_vectors, before)
    fold_in_texts(loaded, {"i61": "Title of 31 odd kind"})
    assert not torch.allclose(loaded.model.text_vectors[row], before[row], atol=0.1)
    fold_in_texts(loaded)
    assert torch.equal(loaded.model.text_vectors, before)


@pytest.mark.parametrize(
    "source",
    [
        *(("--item_vectors=svd",), ("--item_vectors=svd+text",), ("--item_vectors=text",)),
        ("--item_vectors=lightgcn", "--lightgcn_epochs=2"),
    ],
)
def test_items_one_after_the_other_are_folded_in_as_all_at_once(trained, source):
    arguments = ("ContRec", *source)
    once, twice = trained(*arguments), trained(*arguments)
    users = [users_of_item(once, 7), users_of_item(once, 20)]
    fold_in_interactions(once, {"a": users[0], "b": users[1]})
    fold_in_interactions(twice, {"a": users[0]})
    fold_in_interactions(twice, {"b": users[1]})
    torch.testing.assert_close(tokens_of(twice, "a", "b"), tokens_of(once, "a", "b"))
    torch.testing.assert_close(twice.model.item_vectors.weight, once.model.item_vectors.weight)
    torch.testing.assert_close(
        twice.model.retrieval.score_penalty, once.model.retrieval.score_penalty, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("model", MODELS)
def test_new_items_get_their_share_of_the_lists_and_no_more(trained, model):
    loaded = trained(model, "--epochs=3", "--learning_rate=0.01", "--text_similarity=0")  # the twins have no texts
    numbers = loaded.data.dataset.field2token_id["item_id"]
    named = recommend(loaded, k=10, exclude_seen=False).item_id.value_counts().index[:12]
    twins = {f"twin of {item}": users_of_item(loaded, numbers[item]) for item in named}

    def share(exposure):
        loaded.config["new_item_exposure"] = exposure
        fold_in_interactions(loaded, twins, early=False)
        lists = recommend(loaded, k=10)
        return lists.item_id.isin(twins).mean() * (loaded.data.dataset.item_num - 1) / len(twins)  # of a fair one

    crowd, fair, half = share(None), share(1.0), share(0.5)
    assert crowd > 1.5 and 0.8 < fair < 1.2 and 0.35 < half < 0.65  # lists of training are counted, these read more
    batch = next(iter(loaded.data.test))[0]
    scores, (best, items) = loaded.model.full_sort_predict(batch), loaded.model.top_k(batch, 5)
    torch.testing.assert_close(scores.gather(1, items), best)
    batch[loaded.model.ITEM_ID] = torch.full_like(batch[loaded.model.USER_ID], loaded.model.n_items - 1)
    torch.testing.assert_close(loaded.model.predict(batch), scores[:, -1])
    assert share(0.0) < 0.15 and share(crowd + 0.5) == share(None) == crowd


def test_the_places_of_new_items_are_counted_as_they_fall(trained):
    """On the lists that are counted the share is exact, also where most items are new and displace each other. Half of
    their share is less than they take by themselves, whatever the rounding of a processor has made of the model."""
    from recbole_contrec import fold_in as module

    loaded = trained("ContRec", "--epochs=3", "--learning_rate=0.01", "--new_item_exposure=0.5")
    names = loaded.data.dataset.field2id_token["item_id"]
    twins = {
        f"twin {copy} of {names[item]}": users_of_item(loaded, item)
        for copy in range(3)
        for item in np.unique(loaded.data.train.dataset.histories.items)[:30]
    }
    fold_in_interactions(loaded, twins)
    people = module.people_of_training(loaded)
    held = 0
    for batch in (people[:20], people[20:]):
        _, items = loaded.model.top_k(module.as_interaction(loaded.config, batch), 10, module.seen_items(batch))
        held += int(torch.isin(items, torch.tensor(sorted(loaded.new_items))).sum())
    assert held == pytest.approx(0.5 * 10 * len(people) * len(twins) / (loaded.model.n_items - 1), abs=1)


def test_the_loss_knows_nothing_of_the_handicap(trained):
    loaded = trained("ContRec", "--ranking_negatives=10")
    fold_in_interactions(loaded, {"new": users_of_item(loaded, 7)})
    retrieval, items = loaded.model.retrieval, loaded.model.item_vectors.weight
    losses = []
    for score_penalty in (None, torch.linspace(0, 5, len(items))):
        retrieval.score_penalty = score_penalty
        torch.manual_seed(0)
        losses.append(retrieval.ranking_loss(items[3:9], items, torch.arange(4, 10)))
    assert losses[0] == losses[1]


def test_words_lead_to_the_items_that_have_them(tiny, staged):
    """Texts that say where on the circle an item stands: a text between two items gives a vector between theirs."""
    rows = ["item_id:token\ttitle:token_seq"] + [f"i{item}\tplace{item // 6} near{item // 6 + 1}" for item in range(60)]
    (tiny / "tiny" / "tiny.item").write_text("\n".join(rows) + "\n")
    loaded = staged("ContRec", "--item_vectors_init=vectors", "--train_item_vectors=False")
    fold_in_texts(loaded, {"new": "place3 near4"})
    vectors = torch.nn.functional.normalize(loaded.model.item_vectors.weight.detach(), dim=1)
    similar = vectors[:-1] @ vectors[-1]
    numbers = loaded.data.dataset.field2token_id["item_id"]
    of_place = {
        place: np.mean([float(similar[numbers[f"i{item}"]]) for item in range(6 * place, 6 * place + 6)])
        for place in range(10)
    }
    assert max(of_place, key=of_place.get) == 3 and of_place[3] > 0.5


def test_numbers_serve_as_names_and_names_may_end_in_a_blank(trained):
    loaded = trained()
    fold_in_interactions(loaded, {1700: iter(users_of_item(loaded, 7)), "new ": users_of_item(loaded, 8)})
    assert len(recommend(loaded, histories=[["1700", "new ", "i8"]], k=3)) == 3


def test_what_cannot_be_folded_in_is_refused_and_changes_nothing(trained):
    loaded = trained()
    items = loaded.model.n_items
    for users_of, message in (
        ({"new": ["u1", "nobody"]}, "there is no user 'nobody'"),
        ({"new": ["u1", "[PAD]"]}, "there is no user"),
        ({"i7": ["u1"]}, "was in training"),
        ({"[PAD]": ["u1"]}, "is no item"),
        ({"new": []}, "none of its users"),
        ({"new": "u1"}, "is one text"),
    ):
        with pytest.raises(UserError, match=message):
            fold_in_interactions(loaded, users_of)
    for texts, message in (
        ({"i7": "words"}, "was in training"),
        ({"new": "xyz"}, "no word of the text of 'new'"),
        ({"new": ""}, "no word"),
        ({"new": None}, "no word"),
        ({"new": float("nan")}, "the text of 'new' is no text but nan"),
    ):
        with pytest.raises(UserError, match=message):
            fold_in_texts(loaded, texts)
    fold_in_interactions(loaded, {})
    assert fold_in_texts(loaded, {}) == []
    loaded.data.dataset.item_texts = {}
    with pytest.raises(UserError, match="no item texts"):
        fold_in_texts(loaded)
    assert loaded.model.n_items == loaded.data.dataset.item_num == items
    for model in ("SASRec", "TokenRec-beam"):
        with pytest.raises(UserError, match=f"{model} cannot fold in items"):
            fold_in_texts(trained(model))
