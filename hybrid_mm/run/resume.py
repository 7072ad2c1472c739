"""Resuming of a training: from the checkpoint that is named, or the last good one of a run."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from hybrid_mm.checkpoint_files import load_from_local
from hybrid_mm.checkpoints import CheckpointError, read_checkpoint
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.checks.resumed import check_resumed, is_number
from hybrid_mm.run.config import checkpoint_hook

_TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
# names of files that are no points to resume at: best, before a loss that is not finite, published
_OTHERS = re.compile(r'(best|non_finite)_.*|.*-[0-9a-f]{8}\.pth')


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
        seed = self.checkpoint['meta'].get('seed')
        return seed if is_number(seed) else None


class _Found(NamedTuple):
    """A checkpoint of a folder, by what it says itself: copies and ``touch`` do not change that."""

    path: Path
    iter: int
    epoch: int
    time: str  # of saving; empty if it does not say

    @property
    def step(self) -> tuple[int, int]:
        return self.iter, self.epoch


def set_resume(cfg: Config, checkpoint: str | None) -> str | None:
    """Find what a run goes on from, as ``--resume`` or the config demands.

    Args:
        cfg: Config of the run; it gets the seed of the checkpoint.
        checkpoint: File or URL, 'auto' for the newest good one of the work dir, or None to follow
            the config.

    Returns:
        The checkpoint; None if the run begins anew.

    Raises:
        UserError: The checkpoint cannot be read or is not the state of a training; none of those
            in the work dir is good; this run cannot go on from it, see ``check_resumed``.
    """
    hook, flag = checkpoint_hook(cfg), '--resume'
    if checkpoint is None:
        flag = 'resume=True of the config'
        if not cfg.get('resume'):
            warn_of_others(cfg.work_dir, hook, None)
            return None
        checkpoint = cfg.get('load_from') or 'auto'
    if checkpoint == 'auto':
        state = find_training_state(cfg.work_dir, hook)
    else:
        state = read_training_state(checkpoint)
        warn_of_others(cfg.work_dir, hook, checkpoint)
    if state is None:
        start = f'the weights of {cfg.load_from}' if cfg.get('load_from') else 'the beginning'
        warn(f'{flag}: {cfg.work_dir} has no checkpoint; training starts from {start}')
        return None
    if flag != '--resume':  # perhaps it was written by MMEngine for a run that was resumed
        warn(f'{flag}: this run continues from {state.path}')
    check_resumed(cfg, state.path, state.checkpoint['meta'])
    asked = (cfg.get('randomness') or {}).get('seed')
    if state.seed is not None:
        if asked not in (None, state.seed):
            warn(f'--resume: the seed is that of {state.path}, {state.seed}; {asked} is ignored')
        # MMEngine sets this seed as well, but only after it has built the samplers
        cfg.setdefault('randomness', ConfigDict()).seed = state.seed
    return state.path


def read_training_state(path: str, complete: bool = False) -> TrainingState:
    """Read a checkpoint to resume from.

    Args:
        path: File or URL.
        complete: Refuse a checkpoint without an optimizer, or a place, as well.

    Raises:
        CheckpointError: It cannot be read, is damaged, or does not hold the state of a training.
    """
    checkpoint = read_checkpoint(path)
    missing = _missing(checkpoint, complete)
    if missing:
        hint = '' if complete else f'; start from its weights with --cfg-options load_from={path}'
        raise CheckpointError(path, f'does not hold the state of a training (no {missing}){hint}')
    return TrainingState(path, checkpoint)


def _missing(checkpoint: Mapping[str, Any], complete: bool) -> str:
    """What a checkpoint lacks for a training to go on from it; empty if nothing."""
    for part in ('state_dict', 'meta', *(['optimizer'] if complete else ())):
        if not isinstance(checkpoint.get(part), Mapping):
            return part
    for part in ('optimizer', 'message_hub'):
        if not isinstance(checkpoint.get(part), Mapping | None):
            return f'{part}, but a {type(checkpoint[part]).__name__} in its place'
    for key in ('epoch', 'iter') if complete else ():
        if not is_number(checkpoint['meta'].get(key)):
            return f'{key} in meta'
    return ''


def checkpoint_folders(work_dir: str | os.PathLike[str], hook: Mapping[str, Any]) -> list[Path]:
    """Local folders in which a run keeps its checkpoints, that of the hook first.

    Args:
        work_dir: Folder of the run.
        hook: Config of the hook that saves.
    """
    folders = [Path(os.path.abspath(work_dir))]
    out_dir = hook.get('out_dir')
    if out_dir is not None and '://' not in str(out_dir):
        folders.insert(0, Path(os.path.abspath(out_dir)) / folders[0].name)
    return list(dict.fromkeys(folders))


def find_training_state(
    work_dir: str | os.PathLike[str], hook: Mapping[str, Any] | None = None
) -> TrainingState | None:
    """Last good checkpoint of a run; a warning names those that are passed over.

    The one that ``last_checkpoint`` names is taken, if it lies in a folder of this run, or one that
    was saved later and has come further. Without such a one, the last that was saved is: by the
    time that a checkpoint holds, not by that of its file.

    Args:
        work_dir: Folder of the run.
        hook: Config of the hook that saves, whose ``out_dir`` and ``filename_tmpl`` say where.

    Returns:
        None if the run has no checkpoint yet.

    Raises:
        UserError: None of the checkpoints is good, or ``last_checkpoint`` names one elsewhere.
    """
    hook = hook or {}
    folders, named, bad = checkpoint_folders(work_dir, hook), _last(work_dir), []
    if '://' in named and '://' in str(hook.get('out_dir')):
        return read_training_state(named, complete=True)
    paths = _candidates(folders, hook.get('filename_tmpl'))
    same = [path for path in paths if named and os.path.realpath(path) == os.path.realpath(named)]
    same += [path for path in paths if path.name == os.path.basename(named)]
    last = same[0] if same else None
    if named and last is None:
        why = 'is in the folder of another run' if os.path.isfile(named) else 'does not exist'
        bad.append(f'{named} (named by last_checkpoint) {why}')
    older = [path for path in paths if last is not None and _surely_before(path, last)]
    for group in ([path for path in paths if path not in older], older):
        found = []
        for path in group:
            try:
                found.append(_look(path))
            except CheckpointError as error:
                bad.append(f'{path}: {error.reason}')
        good = list(found)
        for candidate in _in_order(found, last):
            try:
                state = read_training_state(str(candidate.path), complete=True)
            except CheckpointError as error:
                bad.append(f'{candidate.path}: {error.reason}')
                good.remove(candidate)
                continue
            for text in bad:
                warn(f'--resume: passed over: {text}')
            further = [other.path.name for other in good if other.step > candidate.step]
            if further:
                warn(
                    f'--resume: {work_dir} has checkpoints of several runs; going on with '
                    f'{candidate.path.name}, which was saved after {shorten(further)}'
                )
            return state
    if bad:
        raise UserError(
            f'--resume: {work_dir} has no good checkpoint:\n  ' + '\n  '.join(bad) + '\n'
            '  start again in another --work-dir, or name a checkpoint with --resume CHECKPOINT'
        )
    return None


def warn_of_others(
    work_dir: str | os.PathLike[str], hook: Mapping[str, Any], start: str | None
) -> None:
    """Warn if a training will overwrite checkpoints that it does not go on from.

    Args:
        work_dir: Folder of the run.
        hook: Config of the hook that saves.
        start: The checkpoint that is resumed, if any; those before it are not overwritten.
    """
    found = _candidates(checkpoint_folders(work_dir, hook), hook.get('filename_tmpl'), usual=True)
    if start is not None and os.path.realpath(start) in map(os.path.realpath, found):
        before = Path(start)
        found = [path for path in found if not _surely_before(path, before)]
        found = [path for path in found if os.path.realpath(path) != os.path.realpath(before)]
    if found:
        names = shorten([path.name for path in found])
        instead = '' if start is not None else '; --resume would continue it'
        warn(
            f'{work_dir} has checkpoints of another training ({names}), which this one overwrites '
            f'when it comes to their steps{instead}'
        )


def _last(work_dir: str | os.PathLike[str]) -> str:
    """What ``last_checkpoint`` of a run names, or an empty string."""
    pointer = Path(work_dir) / 'last_checkpoint'
    named = os.fsdecode(pointer.read_bytes()[:4096]).strip() if pointer.is_file() else ''
    return '' if '\0' in named else named


def _candidates(folders: Iterable[Path], template: str | None, usual: bool = False) -> list[Path]:
    """Files with names of checkpoints; if there are none and not only ``usual``, others as well."""
    patterns = [_pattern(text) for text in (template, *_TEMPLATES) if text]
    files = []
    for folder in folders:
        inner = Path(template).parent if template else Path()
        for place in dict.fromkeys((folder / inner, folder)):
            if place.is_dir():
                files += [path for path in sorted(place.iterdir()) if path.is_file()]
    named = [path for path in files if any(p.fullmatch(path.name) for p in patterns)]
    if named or usual:
        return named
    others = (path for path in files if path.suffix == '.pth' and not _OTHERS.fullmatch(path.name))
    return [path for path in others if not _missing_in(path)]


def _pattern(template: str) -> re.Pattern[str]:
    """Names that a template such as ``iter_{:06d}.pth`` makes."""
    parts = Formatter().parse(os.path.basename(template))
    return re.compile(
        ''.join(re.escape(text) + ('' if field is None else r'\d+') for text, field, *_ in parts)
    )


def _surely_before(path: Path, last: Path) -> bool:
    """Whether two names differ in their number only, and that of ``last`` is the higher one."""
    (kind, number), (of_last, highest) = (
        re.fullmatch(r'(.*?)(\d*)', one.stem).groups()  # type: ignore[union-attr]
        for one in (path, last)
    )
    return kind == of_last and '' not in (number, highest) and int(number) < int(highest)


def _missing_in(path: Path) -> str:
    try:
        _look(path)
    except CheckpointError as error:
        return error.reason
    return ''


def _look(path: Path) -> _Found:
    """What a file says of itself, without reading its tensors.

    Raises:
        CheckpointError: It is damaged, or does not hold the state of a training.
    """
    checkpoint = load_from_local(str(path), 'meta')
    missing = _missing(checkpoint if isinstance(checkpoint, Mapping) else {}, complete=True)
    if missing:
        raise CheckpointError(str(path), f'does not hold the state of a training (no {missing})')
    meta = checkpoint['meta']
    return _Found(path, meta['iter'], meta['epoch'], str(meta.get('time', '')))


def _in_order(found: list[_Found], last: Path | None) -> list[_Found]:
    """Checkpoints in the order in which to try them."""
    by_time = sorted(found, key=lambda one: (one.time, one.step), reverse=True)
    if any(not one.time for one in found):
        by_time.sort(key=lambda one: one.step, reverse=True)
    named = next((one for one in found if one.path == last), None)
    if named is None:
        return by_time
    # a crash may have come between a checkpoint and `last_checkpoint`
    later = [one for one in by_time if one.step > named.step and one.time >= named.time]
    return [*later, named, *(one for one in by_time if one != named and one not in later)]
