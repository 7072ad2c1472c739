"""Resuming of a training: from the checkpoint that is named, or the newest good one of a run."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from hybrid_mm.checkpoints import CheckpointError, read_checkpoint
from hybrid_mm.engine.hooks.atomic_checkpoint import checksum
from hybrid_mm.errors import UserError, warn

_PATTERNS = ('epoch_*.pth', 'iter_*.pth')


class TrainingState(NamedTuple):
    """A checkpoint that training can be resumed from.

    Attributes:
        path: File or URL.
        checkpoint: Its content, with ``state_dict`` and ``meta``.
    """

    path: str
    checkpoint: dict[str, Any]

    @property
    def seed(self) -> int | None:
        """Seed of the training; None if the checkpoint does not say."""
        return self.checkpoint['meta'].get('seed')


def read_training_state(path: str, complete: bool = False) -> TrainingState:
    """Read a checkpoint to resume from.

    Args:
        path: File or URL.
        complete: Refuse a checkpoint without an optimizer, and one that does not match its own
            checksum, as well.

    Raises:
        CheckpointError: It cannot be read, or does not hold the state of a training.
    """
    checkpoint = read_checkpoint(path)
    parts = {'state_dict', 'meta'} | ({'optimizer'} if complete else set())
    if not parts <= set(checkpoint) or not isinstance(checkpoint['meta'], dict):
        hint = '' if complete else f'; start from its weights with --cfg-options load_from={path}'
        raise CheckpointError(path, f'does not hold the state of a training{hint}')
    if complete and checkpoint.get('checksum') not in (None, checksum(checkpoint)):
        raise CheckpointError(path, 'does not match its checksum')
    return TrainingState(path, checkpoint)


def find_training_state(work_dir: str | os.PathLike[str]) -> TrainingState | None:
    """Newest good checkpoint of a run; a warning names those that are passed over.

    Args:
        work_dir: Folder of the run. Checkpoints are looked for in it and beside the one that its
            ``last_checkpoint`` names.

    Returns:
        None if the run has no checkpoint yet.

    Raises:
        UserError: None of the checkpoints is good.
    """
    folders, bad = {Path(work_dir)}, []
    pointer = Path(work_dir) / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if named:
        folders.add(Path(named).parent)
        if not os.path.exists(named):
            bad.append(f'{named} (named by last_checkpoint) does not exist')
    found = {path for folder in folders for name in _PATTERNS for path in folder.glob(name)}
    for path in sorted(found, key=_age, reverse=True):
        try:
            state = read_training_state(str(path), complete=True)
        except CheckpointError as error:
            bad.append(f'{path}: {error.reason}')
            continue
        for text in bad:
            warn(f'--resume: passed over: {text}')
        return state
    if bad:
        raise UserError(
            f'--resume: {work_dir} has no good checkpoint:\n  ' + '\n  '.join(bad) + '\n'
            '  start anew in another --work-dir, or name a checkpoint with --resume CHECKPOINT'
        )
    return None


def _age(path: Path) -> tuple[float, int]:
    """Time of a checkpoint, and its number, which decides where times are too coarse to differ."""
    number = path.stem.rpartition('_')[2]
    return path.stat().st_mtime, int(number) if number.isdecimal() else -1
