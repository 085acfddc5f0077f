"""
recbole_contrec.cli.train
#########################
The command without a word of its own: train and test a model, or list what there is.
"""

from collections.abc import Sequence
from importlib.metadata import version

from recbole_contrec import __version__
from recbole_contrec.cli import several
from recbole_contrec.cli.lists import show_lists
from recbole_contrec.cli.options import Command, paths
from recbole_contrec.errors import UserError, did_you_mean

DESCRIPTION = """\
Generative recommendation with language models inside RecBole.

Commands:
  python run_recbole_contrec.py --model=NAME --dataset=NAME [--key=value ...]
      train, validate after every epoch, test the best epoch, and keep a checkpoint
  python run_recbole_contrec.py tune --model=NAME --dataset=NAME
      settings chosen on validation
  python run_recbole_contrec.py recommend --checkpoint=PATH --users=1,2,3
      ranked items for users, or for somebody new
  python run_recbole_contrec.py export --checkpoint=PATH --output=FILE.npz
      vectors and codes of a trained model, for other systems
  python run_recbole_contrec.py prepare --dataset=NAME
      download a public data set, or convert a table of your own
  python run_recbole_contrec.py vectors --dataset=NAME --output=FILE.npy
      item vectors from interactions or texts, as a file
  python run_recbole_contrec.py semantic_ids --checkpoint=PATH --output=FILE.json
      semantic ids of a trained model, as a file
Each of them has a page of its own: python run_recbole_contrec.py recommend --help"""

EPILOG = """\
Every setting of RecBole and of the model is an option as well, for instance
  --data_path=DIR     where the data sets lie (default: dataset)
  --epochs=N          epochs at most
  --topk=[5,10]       cut-offs of the metrics; ~ stands for nothing
  --seed=N            of everything that is random
  --output=FILE.json  write protocol card, metrics, seconds and settings
  --run_name=NAME     name of the run's folder in --checkpoint_dir=DIR (default: saved)
The command line counts more than config files, these more than the YAML file of the data set, and that more than those
of the model.

Examples:
  python run_recbole_contrec.py --model=ContRec --dataset=ml-100k --epochs=2
  python run_recbole_contrec.py --model=SASRec --dataset=ml-1m --seed=7 --output=result.json
  python run_recbole_contrec.py --model=ContRec --dataset=ml-100k --resume=saved/RUN
  python run_recbole_contrec.py --settings --model=ContRec"""


def parser() -> Command:
    """The options of training."""
    command = Command("", DESCRIPTION, EPILOG)
    command.value("model", "NAME", "of this package, of a properties folder, or of RecBole (SASRec, BERT4Rec, ...)")
    command.value("dataset", "NAME", "ml-100k comes with RecBole; others lie in --data_path=DIR/NAME/NAME.inter")
    command.value("config_files", "A,B", "YAML files of settings; later ones win", paths, [])
    command.value("properties", "DIR", "a folder with model/*.yaml and dataset/*.yaml of your own")
    command.value("resume", "PATH", "go on with a run that was stopped: its folder")
    command.value("init_from", "PATH", "start from a checkpoint, with data that have changed since")
    several.add_options(command)
    command.flag("list-models", "all models, this package's and RecBole's")
    command.flag("list-datasets", "all data sets in --data_path, and those that can be downloaded")
    command.flag("settings", "with --model: every setting of the model, its default and its meaning")
    command.flag("version", "versions of this package and of what it stands on")
    command.usual()
    return command


def train(arguments: Sequence[str]) -> int:
    """Train and test a model.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if command.shows_help(arguments):
        return 0
    options, settings = command.read(arguments)
    if options.version:
        below = (f"{name} {version(name)}" for name in ("recbole", "torch", "transformers"))
        print(", ".join([f"recbole_contrec {__version__}", *below]))
        return 0
    from recbole_contrec.compat import require_recbole

    require_recbole()
    if options.list_models or options.list_datasets or options.settings:
        return show_lists(options, settings)
    if options.model is None or options.dataset is None:
        hint = _misspelt(settings, command)
        raise UserError(f"{hint}name both --model=NAME and --dataset=NAME; --list-models and --list-datasets show them")
    if max(options.nproc, options.world_size) > 1:
        return several.start(options, arguments)
    from recbole_contrec import processes  # slow, as the next one
    from recbole_contrec.quick_start import fetch_missing_data, run

    given = dict(config_file_list=options.config_files, arguments=settings, properties=options.properties)
    with processes.together():
        with processes.first_goes_first():
            fetch_missing_data(options.model, options.dataset, **given)
        run(options.model, options.dataset, **given, resume=options.resume, init_from=options.init_from)
    return 0


def _misspelt(arguments: Sequence[str], command: Command) -> str:
    """The first argument that is nearly an option of the command, for the beginning of an error text."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if near := did_you_mean(name, [option[2:] for option in command.names()]):
            return f"unknown option {argument}{near}; "
    return ""
