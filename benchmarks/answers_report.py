"""
benchmarks.answers_report
#########################
From the record of :mod:`benchmarks.answers` to Markdown tables.
"""

from typing import Any

from markdown import four, head, line
from trained import circumstances

VECTORS, ALONE = "vectors alone", "text alone"
KINDS = ("text_weight", "text_bonus")  # settings whose value is chosen
PARTS = {"valid": "validation", "test": "test"}
METRICS = ("ndcg@10", "hit@10")
GUESSES = ("answers", "most popular", "last item's")  # of the next item's category


def report(content: dict[str, Any]) -> str:
    """The README of a record."""
    card, settings = content["card"], content["settings"]
    measured = [content["said"], *content["forms"]]
    return "\n".join([
        f"# {card['dataset']}: what the language model says, and what it is worth",
        "",
        f"{card['model']}, seed {card['seed']}, answer_weight={settings['answer_weight']:g}, "
        f"answer_template=\"{settings['answer_template']}\", prompt_text={settings['prompt_text']}; "
        f"{circumstances(card, measured)}",
        "",
        tables(content)]) + "\n"


def tables(content: dict[str, Any]) -> str:
    """Everything below the heading: shares, ranking, the choice, examples."""
    return "\n\n".join([shares_table(content["said"]), _about_shares(content["said"]), ranking_table(content["forms"]),
                        *(choice(content["forms"], kind) for kind in KINDS),
                        "By the text alone, items with the same text score the same: the mean over all orders of these. "
                        "Differences on the same users, with a 95 % bootstrap interval.",
                        examples_table(content["said"]["test"]["examples"])])


def shares_table(said: dict[str, Any]) -> str:
    """How often the right category is named, a line a part and a way to count."""
    lines = head("part", "next items", "number", "answers that name a category", *(
        f"{what}: {guess}" for what in ("right", "overlap") for guess in GUESSES), "different answers", "answers/s")
    for part, title in PARTS.items():
        for group in ("all", "with a category"):
            found = said[part][group]
            right, overlap = ([four(found[guess][what]) for guess in GUESSES] for what in ("right", "overlap"))
            lines.append(line(
                title, group, f"{found['targets']:,}", four(found["answers"]["named"]), f"**{right[0]}**", *right[1:],
                f"**{overlap[0]}**", *overlap[1:], f"{said[part]['different_answers']:,}",
                f"{said[part]['answers_per_second']:,.0f}"))
    return "\n".join(lines)


def _about_shares(said: dict[str, Any]) -> str:
    popular = said["test"]["most_popular"] or "there is none"
    return ("Right is a guess that is the whole category of the next item; overlap is the share of words (single genres) "
            "that the two have in common among all that either has. Beside the answers stand two guesses without a model: "
            f"the category of most training targets ({popular}), and that of the last item of the history.")


def ranking_table(forms: list[dict]) -> str:
    """Accuracy and speed, a line a form; the best on validation in bold."""
    lines = head("ranked by", "valid NDCG@10", "valid HR@10", "NDCG@10", "HR@10", "against vectors alone", "valid users/s",
                 "test users/s")
    best = max(record["valid"]["ndcg@10"] for record in forms)
    for record in in_order(forms):
        valid, test = ([four(record[part][metric]) for metric in METRICS] for part in PARTS)
        if record["valid"]["ndcg@10"] == best:
            valid[0] = f"**{valid[0]}**"
        against = "" if record["kind"] == VECTORS else _difference(record)
        lines.append(line(_title(record), *valid, *test, against,
                           *(f"{record[part]['users_per_second']:,.0f}" for part in PARTS)))
    return "\n".join(lines)


def choice(forms: list[dict], kind: str) -> str:
    """The value of a setting that is best on validation, and what it gives on test."""
    vectors, *rest = [record for record in in_order(forms) if record["kind"] in (VECTORS, kind)]
    tried = ", ".join(f"{record['value']:g}" for record in (vectors, *rest))
    chosen = max((vectors, *rest), key=lambda record: record["valid"]["ndcg@10"])
    if chosen is vectors:
        return f"{kind} chosen on validation among {tried}: 0, the vectors alone."
    scores = (f"{title} {four(chosen['test'][metric])} against {four(vectors['test'][metric])}"
              for title, metric in zip(("NDCG@10", "HR@10"), METRICS))
    return (f"{kind} chosen on validation among {tried}: **{chosen['value']:g}**. On test {' and '.join(scores)} of the "
            f"vectors alone, {_difference(chosen)} in NDCG@10.")


def in_order(forms: list[dict]) -> list[dict]:
    """Vectors alone first, then every setting by value, the text alone last."""
    order = [VECTORS, *KINDS, ALONE]
    return sorted(forms, key=lambda record: (order.index(record["kind"]), record["value"]))


def examples_table(examples: list[dict]) -> str:
    """What was said about the first users of the test, by internal number."""
    lines = head("user", "last items", "the model says", "next item", "its category")
    for example in examples:
        shown = (example["user"], "; ".join(example["history"]), *(example[key] for key in ("answer", "next", "category")))
        lines.append(line(*(" ".join(text.split()).replace("|", "\\|") for text in shown)))
    return "\n".join(lines)


def _title(record: dict) -> str:
    return f"{record['kind']} {record['value']:g}" if record["kind"] in KINDS else record["kind"]


def _difference(record: dict) -> str:
    found = record["test_difference"]
    difference, low, high = (f"{value:+.4f}".replace("0.", ".", 1) for value in (
        found["difference"], found["low"], found["high"]))
    return f"{difference} ({low} to {high})"
