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
        draws = torch.empty((states.numel() + 3) // 4, dtype=torch.int64, device="cpu").random_(-(2**63), None)
        values = draws.view(torch.int16)[: states.numel()].view(states.shape)
        # Written as numbers: a product with truth values takes more than twice as long.
        mask = torch.empty(states.shape, dtype=states.dtype, device="cpu")
        torch.ge(values, dropped - _VALUES // 2, out=mask)
        return states * mask.mul_(_VALUES / (_VALUES - dropped))


def use_fast_dropout(model: nn.Module) -> None:
    """Make a :class:`FastDropout` of every :class:`torch.nn.Dropout` inside a model; not of subclasses.

    They stay the same objects: what else refers to one, by another name or by a hook, goes on to do so.
    """
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = FastDropout
