"""Checkpoints that a crash cannot damage; docs/reliability.md describes what is promised."""

import hashlib
import os
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import Tensor

from hybrid_mm.engine.atomic_files import _BACKEND, _TEMPORARY, AtomicBackend, write_atomically
from hybrid_mm.registry import HOOKS


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
