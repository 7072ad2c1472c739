"""Resuming from the newest good checkpoint of a run."""

import os
from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader

from hybrid_mm.checkpoints import READ_ERRORS
from hybrid_mm.engine.hooks.atomic_checkpoint import checksum
from hybrid_mm.errors import UserError, plain_text, warn


def defect(path: str | os.PathLike) -> str | None:
    """Tell why training cannot be resumed from a checkpoint, or None if it can."""
    try:
        checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')
    except READ_ERRORS as error:
        return plain_text(error).strip().split('\n')[0] or type(error).__name__
    if not isinstance(checkpoint, dict) or not {'state_dict', 'optimizer', 'meta'} <= set(
        checkpoint
    ):
        return 'it holds no state of a training'
    if checkpoint.get('checksum') not in (None, checksum(checkpoint)):
        return 'its checksum is another'
    return None


def _age(path: Path) -> tuple[float, int]:
    """Time of a checkpoint, and its number, which decides where times are too coarse to differ."""
    number = path.stem.rpartition('_')[2]
    return path.stat().st_mtime, int(number) if number.isdecimal() else -1


def find_resumable(work_dir: str | os.PathLike) -> str | None:
    """Newest good checkpoint of a run; a warning names those that are passed over.

    Args:
        work_dir: Folder of the run. Checkpoints are looked for in it and beside the one that its
            ``last_checkpoint`` names.

    Returns:
        Its path, or None if the run has no checkpoint yet.

    Raises:
        UserError: None of the checkpoints is good.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    text = pointer.read_text().strip() if pointer.is_file() else ''
    folders, bad = {work_dir}, []
    if text:
        folders.add(Path(text).parent)
        if not os.path.exists(text):
            bad.append(f'{text} (named by last_checkpoint) does not exist')
    found = {p for f in folders for kind in ('epoch_*.pth', 'iter_*.pth') for p in f.glob(kind)}
    for path in sorted(found, key=_age, reverse=True):
        reason = defect(path)
        if reason is None:
            for text in bad:
                warn(f'--resume: passed over: {text}')
            return str(path)
        bad.append(f'{path}: {reason}')
    if bad:
        raise UserError(
            f'--resume: {work_dir} has no good checkpoint:\n  ' + '\n  '.join(bad) + '\n'
            '  start anew in another --work-dir, or name a checkpoint with --resume CHECKPOINT'
        )
    return None
