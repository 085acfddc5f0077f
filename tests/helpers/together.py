"""Several processes as torchrun starts them, with everything loaded once: jobs are done by children of theirs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PROCESSES = 2


class Together:
    """Does jobs in two processes at once; a job is a function of this module that takes a folder, its working
    directory, and arguments."""

    def __init__(self):
        place = {"LOCAL_WORLD_SIZE": PROCESSES, "WORLD_SIZE": PROCESSES, "MASTER_ADDR": "127.0.0.1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.together"],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "PYTHONHASHSEED": str(1 + rank),  # names in sets come in another order in each
                    **{name: str(value) for name, value in {**place, "RANK": rank, "LOCAL_RANK": rank}.items()},
                },
            )
            for rank in range(PROCESSES)
        ]

    def __call__(self, job, folder, *arguments):
        """Do a job.

        Returns:
            list: of every process its exit code, what it printed, and what the job gave.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for process in self.processes:
            process.stdin.write(json.dumps([job, str(folder), port, arguments]) + "\n")
            process.stdin.flush()
        return [tuple(json.loads(process.stdout.readline())) for process in self.processes]

    def close(self):
        """End the processes."""
        for process in self.processes:
            process.stdin.close()
            process.wait()


# jobs


def run(model, arguments, resume=None, dies=None):
    """A run; the process of number ``dies[0]`` ends at step ``dies[1]`` of its optimizer as one that is killed."""
    from recbole_contrec import processes
    from recbole_contrec.quick_start import run
    from tests.helpers.killing import counted

    with processes.together():
        with counted(dies[1] if dies and dies[0] == int(os.environ["RANK"]) else 0, at_once=True):
            return run(model, "tiny", arguments=arguments, resume=resume)


def gradients(model, arguments, steps=1):
    """The largest difference between the gradients of batches in one process and in several, which compute them in so
    many parts, and the largest of one; the same for the loss."""
    import torch

    from recbole_contrec import processes
    from recbole_contrec.training.shares import SharedLoss

    found = {"gradient": [0.0, 0.0], "loss": [0.0, 0.0]}
    with processes.together():
        loaded = _staged(model, arguments)
        model = loaded.model.double().eval()
        shared = SharedLoss(model, steps)
        for batch in _batches(loaded.data.train):
            losses, both = [], []
            together = [lambda: shared(batch)] if steps == 1 else shared.parts(batch)  # noqa: B023
            for computed in ([lambda: model.calculate_loss(batch)], together):  # noqa: B023
                model.zero_grad()
                torch.manual_seed(0)  # the same negatives in all
                losses.append(0.0)
                for compute in computed:
                    terms = compute()
                    loss = sum(terms) if isinstance(terms, tuple) else terms
                    loss.backward()
                    losses[-1] += loss.item()
                both.append([p.grad for p in model.parameters() if p.requires_grad])
            losses[1] = processes.summed(losses[1:])[0] / processes.size()
            assert [grad is None for grad in both[0]] == [grad is None for grad in both[1]]
            for one, other in zip(*both):
                if one is not None and one.numel():
                    assert one.is_sparse == other.is_sparse
                    _widen(found["gradient"], *(g.to_dense() if g.is_sparse else g for g in (one, other)))
            _widen(found["loss"], *torch.tensor(losses)[:, None])
    return found


def sharded_gradients(model, arguments):
    """The largest difference between the gradients of a whole language model in one process and of one in parts, and
    the largest of one; how many parameters were in parts."""
    import torch

    from recbole_contrec import processes
    from recbole_contrec.sharding import whole
    from recbole_contrec.training.shares import SharedLoss

    found = {"gradient": [0.0, 0.0], "in parts": 0}
    with processes.together():
        loaded = _staged(model, arguments)
        model = loaded.model.eval()
        torch.manual_seed(1)  # adapters do nothing at first
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.01 * torch.randn_like(parameter))
        batches, alone = _batches(loaded.data.train), []
        for batch in batches:
            model.zero_grad()
            sum(model.calculate_loss(batch)).backward()
            alone.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        shards = model.backbone.shard()
        shared = SharedLoss(model, 2, shards)
        for batch, expected in zip(batches, alone):
            model.zero_grad()
            for compute in shared.parts(batch):
                sum(compute()).backward()
            grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            assert grads.keys() == expected.keys()
            found["in parts"] = sum(map(processes.is_part, grads.values()))
            for name, grad in grads.items():
                if grad.numel():
                    _widen(found["gradient"], expected[name], whole(grad))
    return found


def evaluation(model, arguments, together):
    """Metrics and ranks of an untrained model on the test data."""
    from contextlib import nullcontext

    import numpy as np

    from recbole_contrec import processes

    with processes.together() if together else nullcontext():
        loaded = _staged(model, arguments)
        trainer = loaded.trainer
        trainer.folder = Path("ranks")
        if together:
            trainer.shard()
        result = dict(trainer.evaluate(loaded.data.test, load_best_model=False, save_ranks=True))
    path = Path("ranks/test_ranks.npz")
    ranks = {name: column.tolist() for name, column in np.load(path).items()} if path.is_file() else {}
    return {"result": result, "ranks": ranks}


def _staged(model, arguments):
    from recbole.utils import init_seed

    from recbole_contrec.data.loading import load_data
    from recbole_contrec.loaded_run import assemble
    from recbole_contrec.settings.config import Config

    config = Config(model, "tiny", arguments=arguments)
    init_seed(config["seed"], config["reproducibility"])
    loaded = assemble(config, load_data(config))
    if hasattr(loaded.data.train, "histories"):
        loaded.trainer.run_stages(loaded.data.train)
    return loaded


def _batches(loader):
    """Two batches, and one of a single row."""
    batches = iter(loader)
    first, second = next(batches), next(batches)
    return [first, second, first[:1]]


def _widen(found, one, other):
    found[0] = max(found[0], float((one - other).abs().max()))
    found[1] = max(found[1], float(one.abs().max()))


def _child(job, folder, port, arguments):
    from recbole_contrec import UserError

    os.environ["MASTER_PORT"] = str(port)
    os.chdir(folder)
    rank = os.environ["RANK"]
    output = os.open(f"output-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    try:
        found = globals()[job](*arguments)
    except UserError as error:
        print(f"error: {error}", flush=True)
        return 2
    Path(f"found-{rank}.json").write_text(json.dumps(found))
    return 0


def _serve():
    import torch

    import recbole_contrec.quick_start  # noqa: F401  (loaded once, before the children)
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model

    for model in ("ContRec", "TokenRec", "TIGER", "SASRecAll", "SASRec"):
        find_model(model, properties_folders())
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    for line in sys.stdin:
        order = json.loads(line)
        folder = Path(order[1])
        (folder / f"found-{rank}.json").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            code = 1
            try:
                code = _child(*order)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = folder / f"found-{rank}.json"
        said = (folder / f"output-{rank}.txt").read_text()
        print(json.dumps([code, said, json.loads(found.read_text()) if found.is_file() else None]), flush=True)


if __name__ == "__main__":
    _serve()
