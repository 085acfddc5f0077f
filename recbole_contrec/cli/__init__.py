"""
recbole_contrec.cli
###################
The command line, one module a command: :mod:`.train`, :mod:`.tune`, :mod:`.recommend`, :mod:`.prepare`,
:mod:`.vectors`, :mod:`.semantic_ids`; what they share is in :mod:`.options`, and :mod:`.main` chooses between them.
"""

from recbole_contrec.cli.main import main

__all__ = ["main"]
