"""What a run that is resumed does with a config that is not the one of its checkpoint."""

from typing import Any

from mmengine.config import Config

from hybrid_mm.checkpoints import CheckpointError
from hybrid_mm.engine.hooks.resumed_settings import refusal
from hybrid_mm.engine.stored_config import changes, stored_config
from hybrid_mm.errors import warn

_SHOWN = 8  # changes in a message


def check_resumed(cfg: Config, path: str, meta: dict[str, Any]) -> None:
    """Compare the config of a run with that of the checkpoint that it is resumed from.

    One warning names what differs; the values of the run are those that are used, see
    ``hybrid_mm.engine.hooks.resumed_settings``.

    Args:
        cfg: Config of the run, with all flags applied.
        path: The checkpoint.
        meta: ``meta`` in it.

    Raises:
        CheckpointError: The checkpoint does not say where the training was, is behind the end of
            this run, or is of a run by iterations where this one goes by epochs, or of another
            optimizer.
    """
    for key in ('epoch', 'iter'):
        if not is_number(meta.get(key)):
            raise CheckpointError(
                path,
                f'does not say at which {key} the training was; start a new run from its weights '
                f'with --cfg-options load_from={path}',
            )
    old, new = stored_config(meta) or {}, cfg.to_dict()
    _check_loop(old.get('train_cfg') or {}, new.get('train_cfg') or {}, path)
    _check_end(new.get('train_cfg') or {}, path, meta)
    before, now = (_optimizer_type(config) for config in (old, new))
    if before and now and before != now:
        raise refusal(path, f'has the state of the optimizer {before}, this run has {now}')
    found = changes(old, new) if old else []
    if found:
        shown = [f'{name} {_text(a)} -> {_text(b)}' for name, a, b in found[:_SHOWN]]
        more = f', and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
        warn(
            f'--resume: the config is not that of {path}; the new values are used: '
            f'{", ".join(shown)}{more}'
        )


def is_number(value: Any) -> bool:
    """Whether a value counts something."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _optimizer_type(cfg: dict[str, Any]) -> str | None:
    """Type of the optimizer, without its scope; None if there are several."""
    wrapper = cfg.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, dict) else None
    return str(optimizer['type']).split('.')[-1] if isinstance(optimizer, dict) else None


def _check_loop(old: dict[str, Any], new: dict[str, Any], path: str) -> None:
    """Refuse a run by epochs where the checkpoint is of one by iterations, and the reverse."""
    units = [_unit(loop) for loop in (old, new)]
    if all(units) and units[0] != units[1]:
        raise refusal(path, f'is of a run by {units[0]}, this run (train_cfg) goes by {units[1]}')


def _unit(loop: dict[str, Any]) -> str | None:
    """What a training loop counts; None if it is not one of MMEngine's."""
    for key, unit in (('max_epochs', 'epochs'), ('max_iters', 'iterations')):
        if loop.get(key) is not None:
            return unit
    return None


def _check_end(loop: dict[str, Any], path: str, meta: dict[str, Any]) -> None:
    """Refuse a run that ends before its checkpoint, and say if there is nothing left to train."""
    unit = _unit(loop)
    if unit is None:
        return
    key, now = ('max_epochs', meta['epoch']) if unit == 'epochs' else ('max_iters', meta['iter'])
    if now > loop[key]:
        raise CheckpointError(
            path,
            f'has {now} {unit}, but this run ends after {loop[key]} (train_cfg.{key}); resume from '
            'an earlier checkpoint, or make the run longer',
        )
    if now == loop[key]:
        warn(
            f'--resume: nothing is left to train: {path} has all {now} {unit}; for a longer run '
            f'raise train_cfg.{key}'
        )


def _text(value: Any) -> str:
    """Value of a setting, shortened."""
    text = 'nothing' if value is None else str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
