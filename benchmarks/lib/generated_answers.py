"""
benchmarks.lib.generated_answers
################################
What a language model says about the next item, counted: how often it names the right category, beside guesses that need
no model.
"""

import re
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

EXAMPLES = 5  # users that are shown
SHOWN = 3  # items of their histories


class Names(NamedTuple):
    """What the items are called, by internal number [N]."""

    titles: list[str]
    categories: list[str]


class Said(NamedTuple):
    """What a model said about every target of a part of the data, n of each."""

    users: np.ndarray
    targets: np.ndarray
    recent: list[list[int]]  # the last items of the history, the last one last
    answers: list[str]
    seconds: float  # for all answers together


def measure_answers(loaded, part) -> dict[str, Any]:
    """Shares, speed and examples of the answers about one part of the data, JSON-like.

    Args:
        loaded: ``LoadedRun`` of a model that has learned to answer.
        part: a loader of the whole catalogue's ranking.
    """
    said, names, categories = collect(loaded, part), names_of(loaded), loaded.model.language.categories
    category_of = categories.category_of.cpu().numpy()
    popular = popular_category(loaded.data.train.dataset.histories, category_of)
    named = categories.named(said.answers).cpu().numpy()
    guesses = {
        "answers": named,
        "most popular": np.full_like(named, popular),
        "last item's": category_of[[items[-1] for items in said.recent]],
    }
    return {
        "answers_per_second": round(len(said.answers) / said.seconds, 1),
        "different_answers": len(set(said.answers)),
        "most_popular": names.categories[np.flatnonzero(category_of == popular)[0]] if popular else "",
        **groups(guesses, category_of[said.targets], genres(names.categories, category_of)),
        "examples": examples(said, names, loaded.data.dataset),
    }


def collect(loaded, part) -> Said:
    """Let the model answer about every target of a part."""
    model, device = loaded.model, loaded.config["device"]
    model.answers(next(iter(part))[0].to(device))  # warms up
    users, targets, recent, answers, seconds = [], [], [], [], 0.0
    for interaction, _, _, target in part:
        start = perf_counter()
        answers += model.answers(interaction.to(device))
        seconds += perf_counter() - start
        users.append(interaction[model.USER_ID].cpu().numpy())
        targets.append(target.numpy())
        recent += [
            items[max(0, length - SHOWN) : length]
            for items, length in zip(interaction[model.ITEM_SEQ].tolist(), interaction[model.ITEM_SEQ_LEN].tolist())
        ]
    return Said(np.concatenate(users), np.concatenate(targets), recent, answers, seconds)


def names_of(loaded) -> Names:
    """Titles (where there is none the name in the data) and categories of the items, as they stand in the data."""
    from recbole_contrec import UserError
    from recbole_contrec.data.text import filled, part_field

    config, dataset = loaded.config, loaded.data.dataset
    texts, tokens = dataset.item_texts, dataset.field2id_token[dataset.iid_field]
    named = {part: config[f"{part}_field"] for part in ("title", "category")}
    try:
        titles = texts[part_field("title", texts, named["title"])]
    except UserError:  # the model may have learned from categories alone
        titles = [""] * len(tokens)
    return Names(
        [title or str(token) for title, token in zip(titles, tokens)], filled(config["category_template"], texts, named)
    )


def popular_category(histories, category_of: np.ndarray) -> int:
    """The category that most training targets have, 0 where none has any.

    Args:
        histories: of training (``Histories``); the first item of each is no target.
        category_of: number of the category of every item [N], 0 = none.
    """
    counts = np.bincount(category_of[np.delete(histories.items, histories.offsets[:-1])])
    return int(counts[1:].argmax()) + 1 if counts[1:].any() else 0


def genres(texts: list[str], category_of: np.ndarray) -> list[set[str]]:
    """The words of every category, by its number; those of number 0 (none) are the empty set.

    Args:
        texts: the category of every item [N]. A hyphen or an apostrophe ends no word: "Sci-Fi Children's" are two.
    """
    found: list[set[str]] = [set() for _ in range(int(category_of.max(initial=0)) + 1)]
    for text, place in zip(texts, category_of):
        if place:
            found[place] |= set(re.findall(r"[\w'’-]+", text.lower()))
    return found


def groups(guesses: dict[str, np.ndarray], true: np.ndarray, words: list[set[str]]) -> dict[str, dict]:
    """Shares of several guesses over all targets, and over those that have a category: a guess cannot be right about
    the others.

    Args:
        guesses: numbers of categories [n] by name, 0 = none.
        true: of the targets [n].
        words: of every category.
    """
    return {
        group: {
            "targets": int(rows.sum()),
            **{name: shares(guess[rows], true[rows], words) for name, guess in guesses.items()},
        }
        for group, rows in (("all", np.ones(len(true), dtype=bool)), ("with a category", true > 0))
    }


def shares(guess: np.ndarray, true: np.ndarray, words: list[set[str]]) -> dict[str, float]:
    """How many guesses [n] name a category, how many the right one, and the mean overlap of their words with those of
    the right one: Jaccard's, common words over all words of both. Zero without targets."""
    if not len(guess):
        return {"named": 0.0, "right": 0.0, "overlap": 0.0}
    overlap = [
        len(words[one] & words[other]) / max(len(words[one] | words[other]), 1) for one, other in zip(guess, true)
    ]
    return {
        "named": float((guess > 0).mean()),
        "right": float(((guess == true) & (true > 0)).mean()),
        "overlap": float(np.mean(overlap)),
    }


def examples(said: Said, names: Names, dataset) -> list[dict[str, Any]]:
    """What was said about the first users by internal number: nobody chooses them."""
    rows = np.argsort(said.users, kind="stable")[:EXAMPLES]
    return [
        {
            "user": str(dataset.id2token(dataset.uid_field, said.users[row])),
            "history": [names.titles[item] for item in said.recent[row]],
            "answer": said.answers[row],
            "next": names.titles[said.targets[row]],
            "category": names.categories[said.targets[row]],
        }
        for row in rows
    ]
