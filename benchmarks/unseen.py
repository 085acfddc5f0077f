"""
benchmarks.unseen
#################
Users and items that nobody has seen in training: how well they are served when they are folded in.

    python benchmarks/unseen.py --dataset=ml-100k --hold=users --models ContRec DeftRec TokenRec SASRecAll-repeat
    python benchmarks/unseen.py --dataset=ml-100k --hold=items --models ContRec DeftRec TokenRec

``--hold=users`` keeps a share of the users out of all training and compares their test rank with that of the others; of
the same users, the table shows what a model that was trained on them reached, where ``compare.py`` left such a run.
``--hold=items`` keeps a share of the items out, their texts too, folds them in from their first ``--early``
interactions and from their texts, and counts how often one that is a test item enters the first 20: where the new items
are held back to their share of the lists, and where they are not. Finished runs are kept and not repeated, and of other
settings or data only replaced with ``--again``.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import sys
from collections import Counter
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from benchmarks.lib.command_line import name_of_a_folder, number, parse_with_settings, told
from benchmarks.lib.running import common_parser, run_all, seeds_of, write_report
from benchmarks.lib.runs import Run, load
from benchmarks.lib.significance import ndcg
from benchmarks.report.unseen import TABLES, TOP


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the table; 0, 1 if a run failed, 2 if it was asked for what cannot be."""
    given = _parse(arguments)
    folder = given.output / f"{given.dataset}-unseen-{given.hold}"
    settings = (f"--hold={given.hold}", f"--hold_share={given.share}", f"--early={given.early}", *given.settings)
    failed = []
    if not given.tables_only:
        with TemporaryDirectory() as place:
            properties = Path(place) / "properties"
            write_properties(properties, given.models)
            failed = run_all(
                [
                    Run(
                        f"{model}-held-out",
                        given.dataset,
                        seed,
                        folder,
                        model,
                        settings,
                        measure="benchmarks.unseen:measure",
                        properties=properties,
                    )
                    for seed in seeds_of(given)
                    for model in given.models
                ],
                given.data_path,
                given.again,
            )
    rows = load(folder)
    if rows:
        table = TABLES[given.hold](rows, load(given.output / given.dataset))
        write_report(folder, f"# {given.dataset}: {given.hold} held out\n\n{table}\n")
    print(*failed, sep="\n", end="", file=sys.stderr)
    return 1 if failed else 0


def write_properties(folder: Path, models: list[str]) -> None:
    """YAML files of models that read :class:`benchmarks.lib.held_out.HeldOutDataset`."""
    (folder / "model").mkdir(parents=True)
    for model in models:
        (folder / "model" / f"{model}-held-out.yaml").write_text(
            f"extends: {model}\ndataset_class: benchmarks.lib.held_out:HeldOutDataset\n"
            "hold: users        # (str; one of: users, items) What is kept out of training.\n"
            "hold_share: 0.05   # (float; 0..<1) How many of them.\n"
            "early: 10          # (int; >= 1) Interactions from which a new item is folded in.\n"
        )


# in the process of a run


class Ranks(NamedTuple):
    """Of every test target: user, item, rank (1 is best) and how many other items tie with it, arrays [n]."""

    users: np.ndarray
    items: np.ndarray
    ranks: np.ndarray
    ties: np.ndarray

    def metrics(self, chosen: np.ndarray) -> dict[str, float]:
        """Mean metrics over some targets [n] (bool), and their number."""
        if not chosen.any():
            return {"targets": 0, "ndcg@10": 0.0, "hit@10": 0.0, f"hit@{TOP}": 0.0}
        gains = ndcg(self.ranks[chosen], self.ties[chosen])
        return {
            "targets": int(chosen.sum()),
            "ndcg@10": float(gains.mean()),
            "hit@10": float((gains > 0).mean()),
            f"hit@{TOP}": float((ndcg(self.ranks[chosen], self.ties[chosen], TOP) > 0).mean()),
        }


def measure(loaded) -> dict:
    """What a finished run says about the users or items that it has not seen."""
    removed = loaded.data.train_dataset.removed
    found = (measure_users if removed.kind == "users" else measure_items)(loaded, removed)
    return {**{key: loaded.config[key] for key in ("hold_share", "early")}, **found}


def measure_users(loaded, removed) -> dict:
    """Held-out users against the others; folded in, with the learned stand-in, and ranked by popularity."""
    found = {"model": rank_targets(loaded, loaded.model.full_sort_predict), "popularity": by_popularity(loaded)}
    from recbole_contrec.interface import FoldsUsersIn

    if isinstance(loaded.model, FoldsUsersIn) and loaded.model.user_fold_in is not None:
        loaded.model.user_fold_in.map.zero_()  # gives no vector: new users read the stand-in
        found["stand-in"] = rank_targets(loaded, loaded.model.full_sort_predict)
    dataset = loaded.data.dataset
    names = dataset.id2token(dataset.uid_field, removed.numbers)
    return {
        "held_out": list(map(str, names)),
        **{
            name: {
                "held out": ranks.metrics(np.isin(ranks.users, removed.numbers)),
                "others": ranks.metrics(~np.isin(ranks.users, removed.numbers)),
            }
            for name, ranks in found.items()
        },
    }


def measure_items(loaded, removed) -> dict:
    """Test targets that are held-out items, and the others: not folded in, folded in both ways, and by popularity."""
    from recbole_contrec import fold_in_interactions, fold_in_texts
    from recbole_contrec.interface import FoldsItemsIn

    count, early = Counter(), []
    for item in removed.items.tolist():
        count[item] += 1
        early.append(count[item] <= loaded.config["early"])
    users, items = removed.users[early], removed.items[early]
    found = {
        "popularity": by_popularity(loaded, items),
        "as it is": rank_targets(loaded, loaded.model.full_sort_predict),
    }
    if isinstance(loaded.model, FoldsItemsIn):
        dataset = loaded.data.dataset
        name = dataset.field2id_token
        users_of = {}
        for user, item in zip(users, items):
            users_of.setdefault(str(name[dataset.iid_field][item]), []).append(str(name[dataset.uid_field][user]))
        weights, texts = deepcopy(loaded.model.state_dict()), dataset.item_texts
        for exposure, suffix in ((1.0, ", held back"), (None, "")):
            loaded.config["new_item_exposure"] = exposure
            _forget_new_items(loaded, weights)
            fold_in_interactions(loaded, users_of)
            found["interactions" + suffix] = rank_targets(loaded, loaded.model.full_sort_predict)
            if texts:
                _forget_new_items(loaded, weights)
                dataset.item_texts = loaded.data.train_dataset.whole_texts
                fold_in_texts(loaded)
                found["texts" + suffix] = rank_targets(loaded, loaded.model.full_sort_predict)
                dataset.item_texts = texts
    return {
        "held_out": len(removed.numbers),
        "chance": TOP / (loaded.data.dataset.item_num - 1),
        **{
            name: {
                "held out": ranks.metrics(np.isin(ranks.items, removed.numbers)),
                "others": ranks.metrics(~np.isin(ranks.items, removed.numbers)),
            }
            for name, ranks in found.items()
        },
    }


def _forget_new_items(loaded, weights) -> None:
    """Back to the model of before any was folded in; all of them are items of the data set, so no table has grown."""
    loaded.model.load_state_dict(weights)
    loaded.new_items.clear()


def rank_targets(loaded, scores_of) -> Ranks:
    """Rank every test target by scores [B, N] of a batch of RecBole's rows."""
    import torch

    columns = []
    with torch.no_grad():
        for interaction, _, _, target in loaded.data.test:
            scores = scores_of(interaction.to(loaded.config["device"])).view(len(target), -1)[:, 1:].cpu()
            own = scores.gather(1, target[:, None] - 1)
            columns.append(
                (
                    interaction[loaded.config["USER_ID_FIELD"]].cpu(),
                    target,
                    1 + (scores > own).sum(1),
                    (scores == own).sum(1) - 1,
                )
            )
    return Ranks(*(torch.cat(column).numpy() for column in zip(*columns)))


def by_popularity(loaded, further_items=()) -> Ranks:
    """Rank by the number of training interactions, and of further ones."""
    import torch

    items = np.concatenate([loaded.data.train_dataset.histories.items, np.asarray(further_items, dtype=np.int64)])
    counts = torch.from_numpy(np.bincount(items, minlength=loaded.data.dataset.item_num)).float()
    return rank_targets(loaded, lambda interaction: counts.expand(len(interaction), -1))


def _parse(arguments):
    parser = common_parser(__doc__, seeds=1)  # each seed holds out others
    parser.add_argument(
        "--models",
        nargs="+",
        type=name_of_a_folder,
        default=["ContRec", "DeftRec", "TokenRec", "SASRecAll-repeat"],
        help="models that train on windows",
    )
    parser.add_argument("--hold", choices=("users", "items"), required=True)
    parser.add_argument(
        "--share", type=partial(number, float, 0, 1), default=0.05, help="of the users or items that is held out"
    )
    parser.add_argument(
        "--early",
        type=partial(number, int, 1, None),
        default=10,
        help="interactions from which a held-out item is folded in",
    )
    given = parse_with_settings(parser, arguments)
    if any(argument.startswith("--mask_seen=") for argument in given.settings):
        parser.error("--mask_seen: this table ranks all items, seen ones as well")
    if not 0 < given.share < 1:
        parser.error("--share lies between 0 and 1")
    return given


if __name__ == "__main__":
    sys.exit(main())
