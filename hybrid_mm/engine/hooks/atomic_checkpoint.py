"""Checkpoints that a crash cannot damage; docs/reliability.md has the promises in full."""

import hashlib
import os
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import Tensor

from hybrid_mm.engine.atomic_files import BACKEND, TEMPORARY, AtomicBackend, write_atomically
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
    """MMEngine's ``CheckpointHook``, with the same arguments, safe against crashes during a save.

    A checkpoint is written under a temporary name, synced and renamed; then ``last_checkpoint`` is
    replaced the same way; only then older files are removed. Every file has a checksum in it.
    Storage other than local disks is left to MMEngine.

    Example:
        >>> default_hooks = dict(
        ...     checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook', max_keep_ckpts=3))
    """

    def before_train(self, runner: Runner) -> None:
        """Set the atomic backend for local folders; remove unfinished files of killed runs."""
        resumed = runner.message_hub.runtime_info.get('last_ckpt')
        if resumed and is_main_process() and os.path.isfile(resumed):
            # a crash may have come between the checkpoint and this file; MMEngine's hook removes
            # outdated checkpoints now
            write_atomically(Path(runner.work_dir) / 'last_checkpoint', resumed.encode())
        super().before_train(runner)
        if type(self.file_backend) is not LocalBackend:
            return
        self.file_backend = AtomicBackend()
        self.backend_args = dict(backend=BACKEND)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                for path in Path(folder).glob(f'*{TEMPORARY}*'):
                    path.unlink(missing_ok=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the checksum of the weights and the optimizer state."""
        checkpoint['checksum'] = checksum(checkpoint)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """MMEngine's method, with the removal of outdated files moved to the end."""
        if not isinstance(self.file_backend, AtomicBackend):
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        outdated = self._keep(step)
        kept = [*self.keep_ckpt_ids] if self.max_keep_ckpts > 0 else []
        # a run that is resumed before the removal below removes the outdated one itself
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

    def _keep(self, step: int) -> int | None:
        """Add a step to those that are kept, and return the one that falls out, if any."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return None
        full = len(self.keep_ckpt_ids) == self.max_keep_ckpts
        oldest = self.keep_ckpt_ids.popleft() if full else None
        self.keep_ckpt_ids.append(step)
        return oldest

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """MMEngine's method, which removes the previous best checkpoint before it saves."""
        if not isinstance(self.file_backend, AtomicBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        with self.file_backend.removing_last():
            super()._save_best_checkpoint(runner, metrics)
