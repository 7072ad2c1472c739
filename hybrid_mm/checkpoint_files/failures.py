"""Errors of checkpoints."""

import os
import re
from pathlib import Path

from hybrid_mm.errors import UserError, shorten

# of files that are named where there is a choice; which of them can be read tells their content
_NAMES = re.compile(r'\.(pth|pt|pyth|bin|safetensors|npz|pkl|msgpack|pth\.tar)$|^checkpoint_\d+$')


class CheckpointError(UserError):
    """A checkpoint that cannot be used.

    Args:
        path: File or URL.
        reason: What is wrong with it, as the predicate of a sentence.

    Attributes:
        reason: The message without the name of the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f'checkpoint {path} {reason}')
        self.reason = reason


class MissingCheckpointError(CheckpointError):
    """A checkpoint that does not exist.

    Args:
        path: The path that was asked for.

    Attributes:
        beside: Phrase that names the checkpoints in the folder of the missing one, or empty.
    """

    def __init__(self, path: str) -> None:
        folder = Path(os.path.expanduser(path)).parent
        self.beside = f'; {folder} has {names}' if (names := checkpoints_in(folder)) else ''
        super().__init__(path, f'does not exist{self.beside}')


def checkpoints_in(folder: Path) -> str:
    """Names of the first checkpoints in a folder, with commas between them; or empty."""
    try:
        return shorten(sorted(file.name for file in folder.iterdir() if _NAMES.search(file.name)))
    except OSError:
        return ''
