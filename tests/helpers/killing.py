"""Runs that die where they are told to: a process that starts runs in children of its own, and counts what they do."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

DIED = 99


@contextlib.contextmanager
def counted(die_at=0, at_once=False):
    """The list of what happens inside this block, from the first state to resume from (or ``at_once``) on: steps of an
    optimizer, and both sides of every moment in which a file gets its name. The process ends at number ``die_at``,
    counted from 1, as one that is killed: nothing is cleared up."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    happened, replace, link, begun = [], os.replace, os.link, [at_once]

    def happens(what):
        if not begun[0]:
            begun[0] = what == "after last.safetensors"
            return
        happened.append(what)
        if len(happened) == die_at:
            os._exit(DIED)

    def watched(function):
        def call(source, target):
            happens(f"before {Path(target).name}")
            function(source, target)
            happens(f"after {Path(target).name}")

        return call

    hook = register_optimizer_step_post_hook(lambda *_: happens("step"))
    os.replace, os.link = watched(replace), watched(link)
    try:
        yield happened
    finally:
        os.replace, os.link = replace, link
        hook.remove()


class Runner:
    """Starts runs in children of one process that has loaded everything already, and has other hashes of texts than
    this one."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        )

    def __call__(self, folder, model, arguments, die_at=0, resume=None):
        """Run a model with a folder as working directory.

        Returns:
            tuple: exit code, and what it printed at last.
        """
        self.process.stdin.write(
            json.dumps([str(folder), model, list(arguments), die_at, resume and str(resume)]) + "\n"
        )
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def _child(folder, model, arguments, die_at, resume):
    from recbole_contrec import UserError, run

    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    try:
        with counted(die_at, at_once=bool(resume)):
            run(model, "tiny", arguments=arguments, resume=resume)
        return 0
    except UserError as error:
        print(f"error: {error}", flush=True)
        return 2


def _serve():
    import torch

    import recbole_contrec.training.refining_trainer  # noqa: F401  (loaded once, before the children)

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                code = _child(*order)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = Path(order[0]) / "output.txt"
        print(json.dumps([code, said.read_text()[-2000:] if said.is_file() else ""]), flush=True)


if __name__ == "__main__":
    _serve()
