"""What is asked of models in several tests."""

import pytest
import torch


class NoNoise:
    """The head's estimate without its draw of noise, so that two ways to the same loss can be compared; nothing for a
    model without a head."""

    def __init__(self, model):
        from recbole_contrec.model.contrec import ContRec

        self.head = model.head if isinstance(model, ContRec) else None

    def __enter__(self):
        if self.head is not None:
            self.estimate = self.head.estimate
            self.head.estimate = self._estimate

    def _estimate(self, condition):
        self.head.eval()
        try:
            return self.estimate(condition)
        finally:
            self.head.train()

    def __exit__(self, *_):
        if self.head is not None:
            self.head.estimate = self.estimate


@torch.no_grad()
def exact_scores(model, rows):
    """Log-probabilities of the whole catalogue [B, N] of a model that writes codes, one teacher-forced pass an item and
    none of what a search needs; -inf for items without codes."""
    table = model.decoder.item_codes
    codes, none = table.codes, table.unknown_code
    scores = torch.full((len(rows), len(codes)), -torch.inf, dtype=torch.double)
    for row, length in enumerate(rows["item_length"].tolist()):
        history, user = rows["item_id_list"][row, :length], rows["user_id"][row : row + 1]
        prompt = model.history.layout(history[None], user).vectors
        for item in (codes[:, 0] < none).nonzero().squeeze(1).tolist():
            if not model.backbone.causal:
                own = table(torch.tensor([item]))[:, :-1]
                states = model.backbone.decode(*model.backbone.encode(prompt), own)[0]
            else:
                states = model(torch.cat([history, torch.tensor([item])])[None], user)[0, -1]
            scores[row, item] = sum(
                head(states[level]).log_softmax(0)[codes[item, level]] for level, head in enumerate(model.decoder.heads)
            )
    return scores


def low_rank(n=400, d=16, rank=6, seed=0):
    """A table of standardised vectors [n, d] that lie in few dimensions; row 0 is the padding."""
    from recbole_contrec.tokenizer import standardise

    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, rank, generator=g) @ torch.randn(rank, d, generator=g)
    x[0] = 0
    return standardise(x)


def moved_by_training(loaded, steps):
    """Names of the parameters that some steps at a high rate change."""
    model, optimiser = loaded.model.train(), loaded.trainer.optimizer
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimiser.param_groups:
        group["lr"] = 1e-2
    for batch, _ in zip(loaded.data.train, range(steps)):
        optimiser.zero_grad()
        sum(model.calculate_loss(batch)).backward()
        optimiser.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def each(table):
    """Parameters (model, case) of a table model -> cases."""
    return [
        pytest.param(model, case, id=f"{model} {' '.join(map(str, case))}")
        for model, cases in table.items()
        for case in cases
    ]


def untrained(model):
    """Parameters that shall train and get no gradient."""
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.numel() and (p.grad is None or not p.grad.any())
    ]


def stirred(model):
    """The model in training with what starts at zero, and so keeps others from learning at first, off zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    return model.train()
