"""Recommendations for people and of items that no training has seen.

python examples/new_users_and_items.py
"""

import sys

from recbole_contrec import fold_in_interactions, load_data_and_model, recommend, run


def main() -> None:
    """Train for two epochs, then bring a new user and a new film."""
    settings = {"epochs": 2, "show_progress": False}
    result = run("ContRec", "ml-100k", settings=settings, arguments=sys.argv[1:])
    loaded = load_data_and_model(result["checkpoint"])
    history = ["50", "181", "174"]  # Star Wars, Return of the Jedi, Raiders of the Lost Ark
    print(recommend(loaded, histories=[history], k=5).to_string(index=False))
    fold_in_interactions(loaded, {"a new film": ["196", "186", "22", "244"]})  # and the users who have had it so far
    print(recommend(loaded, histories=[[*history, "a new film"]], k=5).to_string(index=False))


if __name__ == "__main__":
    main()
