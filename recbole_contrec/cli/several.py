"""
recbole_contrec.cli.several
###########################
``--nproc=N``, as RecBole's users start several processes: what ``torchrun`` does, under RecBole's names.
"""

import argparse
import os
from collections.abc import Sequence

from recbole_contrec.cli.options import Command, whole_number
from recbole_contrec.errors import UserError


def add_options(command: Command) -> None:
    """The options of ``run_recbole.py``."""
    command.value("nproc", "N", "processes on this machine that train one model together", whole_number("nproc"), 1)
    command.value("world_size", "N", "processes on all machines (default: those of --nproc)", int, -1)
    command.value("ip", "IP", "of the machine whose group_offset is 0", default="localhost")
    command.value("port", "N", "a free port there", whole_number("port"), 5678)
    command.value("group_offset", "N", "processes on the machines before this one", int, 0)


def start(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Start the processes of this machine, and wait for their end.

    Args:
        options: of the command line.
        arguments: the command line itself.

    Returns:
        int: 0 where all of them ended well; else 2, and the error has been told.

    Raises:
        UserError: numbers that do not go together.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("torchrun has started this process already: leave out --nproc and --world_size")
    here, offset = options.nproc, options.group_offset
    everywhere = here if options.world_size == -1 else options.world_size
    if everywhere % here or offset % here or not 0 <= offset < everywhere:
        raise UserError(
            f"--nproc={here} --world_size={everywhere} --group_offset={offset}: every machine starts nproc processes, "
            "so the others are multiples of it, and group_offset is smaller than world_size"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun  # slow

    place = ["--standalone"]
    if everywhere > here:
        place = [f"--nnodes={everywhere // here}", f"--node_rank={offset // here}"]
        place += [f"--master_addr={options.ip}", f"--master_port={options.port}"]
    own = tuple(f"--{name}=" for name in ("nproc", "world_size", "ip", "port", "group_offset"))
    rest = [argument for argument in arguments if not argument.startswith(own)]
    try:
        torchrun([f"--nproc_per_node={here}", *place, "-m", "recbole_contrec", *rest])
    except ChildFailedError:
        return 2
    except SignalException as error:  # Ctrl-C
        raise KeyboardInterrupt from error
    return 0
