"""Checkpoints that a crash cannot damage; docs/reliability.md has the promises in full."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import FileClient, LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from hybrid_mm.checkpoint_files import KEY, checksum
from hybrid_mm.engine.atomic_files import (
    BACKEND,
    AtomicBackend,
    remove_unfinished,
    write_atomically,
)
from hybrid_mm.engine.work_dir_lock import locked
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with the same arguments, safe against crashes during a save.

    A checkpoint is written under a temporary name, synced and renamed; then ``last_checkpoint`` is
    replaced the same way; only then older files are removed. Every file has a checksum in it.

    A run touches files of its own folder only: of the paths that a checkpoint holds, the names are
    used, in the folder of this run, and only if the checkpoint itself lies there. The folder is
    locked while a training lasts. Storage other than local disks is written as by MMEngine.

    Example:
        >>> default_hooks = dict(
        ...     checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook', max_keep_ckpts=3))
    """

    def before_train(self, runner: Runner) -> None:
        """Lock the folder, take over what is this run's own; remove what killed runs left.

        Raises:
            UserError: Another training uses the folder.
        """
        self._lock = ExitStack()
        backend = self._backend(runner)
        folder = self._folder(runner, backend)
        if self.published_keys is not None:  # what is published is not what was saved
            self.published_keys = [key for key in self.published_keys if key != KEY]
        local = type(backend) in (LocalBackend, AtomicBackend)
        if local:
            self._lock.enter_context(locked({folder, runner.work_dir}))
        self._take_over(runner, folder, backend)
        super().before_train(runner)
        self.out_dir = folder
        if not any(isinstance(hook, _ChecksumHook) for hook in runner.hooks):
            runner.register_hook(_ChecksumHook())
        if not local:
            return
        self.file_backend = AtomicBackend()
        self.backend_args = dict(backend=BACKEND)
        if is_main_process():
            for path in {folder, runner.work_dir}:
                if os.path.isdir(path):
                    remove_unfinished(path)

    def after_train(self, runner: Runner) -> None:
        """Publish the checkpoints, as MMEngine's hook does; let the folder go."""
        super().after_train(runner)
        self._lock.close()

    def _backend(self, runner: Runner) -> Any:
        """Storage of the checkpoints, before MMEngine's hook sets it."""
        place = str(self.out_dir or runner.work_dir)
        if self.file_client_args is not None:
            return FileClient.infer_client(self.file_client_args, place)
        return get_file_backend(place, backend_args=self.backend_args)

    def _folder(self, runner: Runner, backend: Any) -> str:
        """Folder of the checkpoints, as MMEngine's hook makes it, absolute on local disks."""
        place = str(self.out_dir or runner.work_dir)
        if hasattr(self, 'file_backend'):
            return place  # a further training of the same runner
        if place != runner.work_dir:
            name = os.path.basename(runner.work_dir.rstrip(os.sep))
            place = str(backend.join_path(place, name))
        return os.path.abspath(place) if isinstance(backend, LocalBackend) else place

    def _take_over(self, runner: Runner, folder: str, backend: Any) -> None:
        """Let the paths that a resumed run brings along be those of its own files, or none.

        A checkpoint of another folder is the start of a branch: its best and its older checkpoints
        stay with the run that they belong to.
        """
        resumed = self._resumed_file(runner)
        if resumed is None:
            return
        info = runner.message_hub.runtime_info
        # filename_tmpl may hold a folder
        saved = os.path.dirname(str(backend.join_path(folder, self.filename_tmpl)))
        own = _same(os.path.dirname(resumed), folder) or _same(os.path.dirname(resumed), saved)
        for key in [k for k in info if k in ('last_ckpt', 'best_ckpt') or 'best_ckpt_' in k]:
            name = os.path.basename(str(info[key]))
            path = str(backend.join_path(saved if key == 'last_ckpt' else folder, name))
            if own and backend.exists(path):
                runner.message_hub.update_info(key, path)
                continue
            if key != 'last_ckpt':
                info.pop(f'best_score{key[len("best_ckpt") :]}', None)
                why = f'is not in {folder}' if own else 'stays with the run it belongs to'
                runner.logger.warning(
                    f'the best checkpoint so far, {name}, {why}; the best one is chosen '
                    'again from the next validation on'
                )
            info.pop(key)
        kept = [step for step in info.pop('keep_ckpt_ids', []) if own]
        paths = [backend.join_path(folder, self.filename_tmpl.format(step)) for step in kept]
        kept = [step for step, path in zip(kept, paths, strict=True) if backend.exists(path)]
        if kept:
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        if 'last_ckpt' in info:
            self.last_ckpt = info['last_ckpt']
            if is_main_process() and os.path.basename(resumed) == os.path.basename(self.last_ckpt):
                # a crash may have come between the checkpoint and this file; MMEngine's hook
                # removes outdated checkpoints now
                write_atomically(
                    Path(runner.work_dir) / 'last_checkpoint', os.fsencode(self.last_ckpt)
                )

    def _resumed_file(self, runner: Runner) -> str | None:
        """The checkpoint that a runner has resumed; None if it has not."""
        if not getattr(runner, '_resume', False):
            return None
        return runner._load_from or find_latest_checkpoint(runner.work_dir)

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
        write_atomically(Path(runner.work_dir) / 'last_checkpoint', os.fsencode(self.last_ckpt))
        if outdated is not None:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
            if path != self.last_ckpt and self.file_backend.isfile(path):
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
        """MMEngine's method, which removes the previous best checkpoint before it saves.

        Raises:
            UserError: The validation did not return the metric; the state is saved before.
        """
        wanted = self.key_indicators if self.save_best else []
        missing = [name for name in wanted if name != 'auto' and name not in metrics]
        if missing:
            step = runner.epoch if self.by_epoch else runner.iter
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)
            raise UserError(
                f'save_best {missing[0]!r} of the checkpoint hook is not one of the metrics that '
                f'the validation returned ({", ".join(metrics)}){nearest(missing[0], metrics)}. '
                'The state of the training is saved; change save_best and continue with --resume'
            )
        if not isinstance(self.file_backend, AtomicBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        with self.file_backend.removing_last() as outdated:
            super()._save_best_checkpoint(runner, metrics)
            info = runner.message_hub.runtime_info
            new = [path for key, path in info.items() if key.startswith('best_ckpt')]
            outdated[:] = [path for path in outdated if path not in new]  # of one name

    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        """MMEngine's method, for a checkpoint that there is."""
        if ckpt_path is not None and self.file_backend.exists(ckpt_path):
            super()._publish_model(runner, ckpt_path)


def _same(one: str, other: str) -> bool:
    """Whether two names are of one folder."""
    if '://' in one or '://' in other:
        return one.rstrip('/') == other.rstrip('/')
    return os.path.realpath(one) == os.path.realpath(other)


class _ChecksumHook(Hook):
    """Add the checksum of a checkpoint when all other hooks are through with it."""

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the checksum."""
        checkpoint[KEY] = checksum(checkpoint)
