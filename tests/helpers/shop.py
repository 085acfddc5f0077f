"""A small data set by its lines."""


def inter(data):
    """Users and items of all interactions, by name, as a sorted list."""
    dataset = data.dataset
    return sorted(
        zip(
            dataset.id2token(dataset.uid_field, data.dataset.all_interactions.users),
            dataset.id2token(dataset.iid_field, data.dataset.all_interactions.items),
        )
    )


def rows_of(users=4, events=5, *columns):
    """Lines user|item|time and what columns give for (user, place)."""
    return [
        "|".join(
            [f"u{user}", f"i{(user + 2 * place) % 17}", str(place), *(str(column(user, place)) for column in columns)]
        )
        for user in range(users)
        for place in range(events)
    ]


CLICKS = (
    "--eval_args={'mode': 'labeled', 'split': {'RS': [0.2, 0.4, 0.4]}, 'order': 'RO', 'group_by': 'none'}",
    "--metrics=['AUC']",
    "--valid_metric=AUC",
)
HEADER = "user_id:token|item_id:token|timestamp:float"
