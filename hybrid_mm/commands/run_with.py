"""``python -m hybrid_mm run``: a program of others, with ``import hybrid_mm`` before all else."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hybrid_mm.compat import after_import
from hybrid_mm.errors import UserError

_STARTUP = Path(after_import.__file__).parent / 'startup'


def environment() -> dict[str, str]:
    """Environment in which every Python imports ``hybrid_mm`` as it starts.

    Its ``sitecustomize`` stands first on ``PYTHONPATH``, so that launchers, data workers and other
    processes of the program have it as well, and nothing is written.
    """
    path = [str(_STARTUP), *filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(dict.fromkeys(path))}


def run(command: Sequence[str]) -> int:
    """Replace this process by a program.

    Args:
        command: The program and its arguments, e.g. ``['mim', 'train', 'mmdet', 'mine.py']``.
            ``python`` is the Python that runs this, a ``.py`` file is run by it, and programs are
            looked for beside it first: those of its environment.

    Returns:
        Never.

    Raises:
        UserError: There is no such program.
    """
    name, *words = command
    if name == 'python' or name.endswith('.py'):
        words = words if name == 'python' else [name, *words]
        program = sys.executable
    else:
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
        found = shutil.which(name, path=places)
        if found is None:
            raise UserError(
                f'there is no program {name}; write what you would type without this, e.g. '
                'python -m hybrid_mm run python train.py CONFIG'
            )
        program = found
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, [name if program != sys.executable else program, *words], environment())
