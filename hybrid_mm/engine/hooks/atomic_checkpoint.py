"""Checkpoints that a crash cannot damage; docs/reliability.md has the promises in full."""

import os
from contextlib import ExitStack
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
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
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with the same arguments, safe against crashes during a save.

    A checkpoint is written under a temporary name, synced and renamed; then ``last_checkpoint`` is
    replaced the same way; only then older files are removed. Every file has a checksum in it.

    A run touches files of its own folder only: of the paths that a checkpoint holds, the names are
    used, in the folder of this run, and only if the checkpoint itself lies there. The folder is
    locked while a training lasts. Storage other than local disks is left to MMEngine.

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
        folder = self._local_folder(runner)
        if folder is None:
            super().before_train(runner)
            return
        self._lock.enter_context(locked({folder, runner.work_dir}))
        if self.published_keys is not None:  # what is published is not what was saved
            self.published_keys = [key for key in self.published_keys if key != KEY]
        self._take_over(runner, folder)
        super().before_train(runner)
        self.out_dir = str(folder)
        self.file_backend = AtomicBackend()
        self.backend_args = dict(backend=BACKEND)
        if not any(isinstance(hook, _ChecksumHook) for hook in runner.hooks):
            runner.register_hook(_ChecksumHook())
        if is_main_process():
            for path in {folder, Path(runner.work_dir)}:
                remove_unfinished(path)

    def after_train(self, runner: Runner) -> None:
        """Publish the checkpoints, as MMEngine's hook does; let the folder go."""
        super().after_train(runner)
        self._lock.close()

    def _local_folder(self, runner: Runner) -> Path | None:
        """Folder of the checkpoints; None if it is not on a local disk."""
        if isinstance(getattr(self, 'file_backend', None), AtomicBackend):
            return Path(self.out_dir)  # a further training of the same runner
        place = self.out_dir or runner.work_dir
        backend = get_file_backend(place, backend_args=self.backend_args)
        if self.file_client_args is not None or type(backend) is not LocalBackend:
            return None
        if place != runner.work_dir:  # as MMEngine's hook does
            place = os.path.join(place, os.path.basename(runner.work_dir.rstrip(os.sep)))
        return Path(os.path.abspath(place))

    def _take_over(self, runner: Runner, folder: Path) -> None:
        """Let the paths that a resumed run brings along be those of its own files, or none.

        A checkpoint of another folder is the start of a branch: its best and its older checkpoints
        stay with the run that they belong to.
        """
        info = runner.message_hub.runtime_info
        resumed = self._resumed_file(runner)
        if resumed is None:
            return
        # filename_tmpl may hold a folder
        saved = (folder / self.filename_tmpl).parent
        own = os.path.realpath(Path(resumed).parent) in map(os.path.realpath, (folder, saved))
        for key in [k for k in info if k in ('last_ckpt', 'best_ckpt') or 'best_ckpt_' in k]:
            path = (saved if key == 'last_ckpt' else folder) / os.path.basename(str(info[key]))
            if own and path.exists():
                runner.message_hub.update_info(key, str(path))
                continue
            if key != 'last_ckpt':
                info.pop(f'best_score{key[len("best_ckpt") :]}', None)
                why = f'is not in {folder}' if own else 'stays with the run it belongs to'
                runner.logger.warning(
                    f'the best checkpoint so far, {path.name}, {why}; the choice of the best '
                    'starts anew with the next validation'
                )
            info.pop(key)
        kept = [step for step in info.pop('keep_ckpt_ids', []) if own and self._path(saved, step)]
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

    def _path(self, folder: Path, step: int) -> Path | None:
        """Checkpoint of a step, if there is one."""
        path = folder / os.path.basename(self.filename_tmpl.format(step))
        return path if path.exists() else None

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

    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        """MMEngine's method, for a checkpoint that there is."""
        if ckpt_path is not None and self.file_backend.exists(ckpt_path):
            super()._publish_model(runner, ckpt_path)


class _ChecksumHook(Hook):
    """Add the checksum of a checkpoint when all other hooks are through with it."""

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the checksum."""
        checkpoint[KEY] = checksum(checkpoint)
