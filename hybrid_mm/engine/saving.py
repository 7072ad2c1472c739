"""Checkpoints that a crash cannot damage, and resuming from the newest good one.

See docs/reliability.md for what is promised.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from hybrid_mm.engine.checkpoint import READ_ERRORS
from hybrid_mm.engine.cli import UserError, plain_text, warn
from hybrid_mm.registry import HOOKS

_BACKEND = 'hybrid_mm_atomic'
_TEMPORARY = '.tmp-'


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that after a crash at any point it is the old one or the new one, whole.

    Args:
        path: The file; its folder is made.
        data: What it shall hold.

    Raises:
        OSError: A full disk, for one; the old file is untouched then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}{_TEMPORARY}{os.getpid()}')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a renaming outlast a failure of power, where the system lets a folder be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class AtomicBackend(LocalBackend):
    """Local files that are written atomically, and whose removal may wait."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file atomically."""
        write_atomically(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, inside of :meth:`removing_last` at its end."""
        if self._waiting is None:
            super().remove(filepath)
        else:
            self._waiting.append(str(filepath))

    @contextmanager
    def removing_last(self) -> Iterator[None]:
        """Remove files at the end of the block, and not at all if it fails."""
        self._waiting = []
        try:
            yield
            waiting, self._waiting = self._waiting, None
            for path in waiting:
                super().remove(path)
        finally:
            self._waiting = None


register_backend(_BACKEND, AtomicBackend, force=True)


def checksum(checkpoint: dict) -> str:
    """Checksum (BLAKE2b, 128 bits) of the weights and the optimizer state of a checkpoint."""
    digest = hashlib.blake2b(digest_size=16)

    def add(name: str, node: object) -> None:
        if isinstance(node, Tensor):
            digest.update(f'{name} {node.dtype} {tuple(node.shape)}'.encode())
            if node.numel():
                flat = node.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy())
        elif isinstance(node, dict):
            for key, value in node.items():
                add(f'{name}.{key}', value)
        elif isinstance(node, list | tuple):
            for i, value in enumerate(node):
                add(f'{name}.{i}', value)
        elif isinstance(node, int | float | str | None):
            digest.update(f'{name} {node!r}'.encode())

    for part in ('state_dict', 'optimizer'):
        add(part, checkpoint.get(part))
    return digest.hexdigest()


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` whose files outlive a crash at any point of a save.

    A checkpoint is written beside its place, synced and renamed; then ``last_checkpoint`` is
    replaced the same way; only then older files are removed. Every file carries a checksum. Folders
    of other storage than local disks are written as MMEngine does. Takes the same arguments.

    Example:
        >>> default_hooks = dict(
        ...     checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook', max_keep_ckpts=3))
    """

    def before_train(self, runner: Runner) -> None:
        """Take the atomic backend for local folders; clear what killed runs left half written."""
        resumed = runner.message_hub.runtime_info.get('last_ckpt')
        if resumed and is_main_process() and os.path.isfile(resumed):
            # a crash may have come between the two, and what follows removes outdated files
            write_atomically(Path(runner.work_dir) / 'last_checkpoint', resumed.encode())
        super().before_train(runner)
        if type(self.file_backend) is not LocalBackend:
            return
        self.file_backend = AtomicBackend()
        self.backend_args = dict(backend=_BACKEND)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                for path in Path(folder).glob(f'*{_TEMPORARY}*'):
                    path.unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the checksum."""
        checkpoint['checksum'] = checksum(checkpoint)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not isinstance(self.file_backend, AtomicBackend):
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        outdated = self._note(step)
        kept = [*self.keep_ckpt_ids] if self.max_keep_ckpts > 0 else []
        # until it is removed, the state names the outdated one as well: resuming removes it then
        waiting = [] if outdated is None else [outdated]
        runner.message_hub.update_info('keep_ckpt_ids', waiting + kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        if not is_main_process():
            return
        write_atomically(Path(runner.work_dir) / 'last_checkpoint', self.last_ckpt.encode())
        if outdated is not None:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _note(self, step: int) -> int | None:
        """Note a checkpoint as one of those that are kept; return the step to remove for it."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return None
        full = len(self.keep_ckpt_ids) == self.max_keep_ckpts
        oldest = self.keep_ckpt_ids.popleft() if full else None
        self.keep_ckpt_ids.append(step)
        return oldest

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not isinstance(self.file_backend, AtomicBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        with self.file_backend.removing_last():
            super()._save_best_checkpoint(runner, metrics)


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
