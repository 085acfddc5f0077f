"""
recbole_contrec.backbone.dropout
################################
Dropout whose random numbers are cheap on a CPU, for any model made of torch's modules.

There torch draws one number of its Mersenne Twister for every element and compares it in double precision, 10 to 20 ns
each: of a training step of RecBole's SASRec a third. Four elements can share the 64 bits of one draw.
"""

import torch
from torch import Tensor, nn

_VALUES = 2**16  # of the 16 bits that decide on an element


class FastDropout(nn.Dropout):
    """Dropout by 16 random bits an element on a CPU, and torch's own elsewhere.

    The random numbers are those of torch's generator, so a seed and a resumed run repeat them; but they are others than
    those of :class:`torch.nn.Dropout` with the same seed. ``p`` is rounded to a multiple of 2^-16, and what is kept is
    scaled by the rounded one.
    """

    def forward(self, states: Tensor) -> Tensor:
        """States of any shape, of the same shape."""
        dropped = round(self.p * _VALUES)
        if not self.training or not 0 < dropped < _VALUES or states.device.type != "cpu" or self.inplace:
            return super().forward(states)
        draws = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        values = draws.view(torch.int16)[: states.numel()].view(states.shape)
        # Written as numbers: a product with truth values takes more than twice as long.
        mask = torch.ge(values, dropped - _VALUES // 2, out=torch.empty(states.shape, dtype=states.dtype))
        return states * mask.mul_(_VALUES / (_VALUES - dropped))


def use_fast_dropout(model: nn.Module) -> None:
    """Put a :class:`FastDropout` in the place of every :class:`torch.nn.Dropout` inside a model; not of subclasses."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                fast = FastDropout(child.p, child.inplace)
                setattr(module, name, fast.train(child.training))
