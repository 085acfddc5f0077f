"""What a data set holds, derived from its ``.inter`` file without RecBole, pandas or this package: csv, float64 and
numpy."""

import csv
import math
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

NOTHING = {
    "",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
}


class Event(NamedTuple):
    user: str
    item: str
    time: float


def seen(name: str) -> str:
    """A name without blanks around it and without characters that nobody sees; one of these alone is no name."""
    return "".join(sign for sign in name if unicodedata.category(sign) not in ("Cc", "Cf")).strip()


def read_events(
    path, user="user_id", item="item_id", time="timestamp", separator="\t", encoding="utf-8-sig"
) -> list[Event]:
    """Events in order of the file, but for those that lack a user, an item or a finite time. Any fault is an
    exception."""
    with open(path, encoding=encoding, newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=separator) if row]
    header = dict(cell.split(":") for cell in rows[0])
    assert (header[user], header[item], header[time]) == ("token", "token", "float") and len(header) == len(rows[0])
    places = [list(header).index(name) for name in (user, item, time)]
    events = []
    for row in rows[1:]:
        assert len(row) == len(header), row
        name, thing, moment = (row[place] for place in places)
        moment = math.nan if moment.strip() in NOTHING else float(moment)  # a blank is no time
        if seen(name) not in NOTHING and seen(thing) not in NOTHING and abs(moment) <= float(np.finfo(np.float32).max):
            events.append(Event(name, thing, moment))
    return events


def histories(events: list[Event], normalised: bool = False) -> dict[str, list[str]]:
    """Items of every user in order of time in single precision, equal times in order of the file, as the protocol card
    says.

    Args:
        normalised: times are brought into [0, 1] first (RecBole's ``normalize_all``).
    """
    times = np.array([event.time for event in events])
    if normalised:
        times = (times - times.min()) / (times.max() - times.min())
    found = defaultdict(list)
    for place in np.argsort(times.astype(np.float32), kind="stable"):
        found[events[place].user].append(events[place].item)
    return dict(found)


def histories_of_run(data) -> dict[str, list[str]]:
    """The same as a run has read them: what its test rows show of every user, and their targets.
    ``MAX_ITEM_LIST_LENGTH`` must be as long as the longest."""
    dataset = data.dataset
    rows = data.test.dataset.inter_feat
    users = dataset.id2token(dataset.uid_field, rows[dataset.uid_field].numpy())
    names = dataset.field2id_token[dataset.iid_field]
    lists, lengths = rows[f"{dataset.iid_field}_list"].numpy(), rows["item_length"].numpy()
    targets = rows[dataset.iid_field].numpy()
    return {
        str(user): [str(name) for name in names[[*row[:length], target]]]
        for user, row, length, target in zip(users, lists, lengths, targets)
    }


def ndcg(ranks, k: int) -> float:
    """Mean of 1 / log2(1 + rank) over the targets that stand among the first ``k``."""
    return float(np.mean([1 / math.log2(1 + rank) if rank <= k else 0 for rank in ranks]))


def ml_100k() -> Path:
    import recbole

    return Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
