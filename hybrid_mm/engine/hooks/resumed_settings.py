"""Settings of a resumed run: those of its config, not those that a checkpoint remembers."""

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from hybrid_mm.checkpoints import CheckpointError, check_weights
from hybrid_mm.engine.hooks.exact_resume import DATA, data_of
from hybrid_mm.engine.optimizer_state import is_scheduled, same_settings, set_scaler, why_unfit
from hybrid_mm.engine.schedules import advance, needs_metrics, settings_of
from hybrid_mm.engine.stored_config import changes, stored_config
from hybrid_mm.errors import shorten, warn


def refusal(path: str, reason: str) -> CheckpointError:
    """Make the error for a checkpoint that a run cannot go on from, with the ways out."""
    return CheckpointError(
        path,
        f'{reason}; it cannot be resumed so: undo the change, or start a new run from its weights '
        f'with --cfg-options load_from={path}',
    )


class ResumedSettingsHook(Hook):
    """Make a resumed run use the settings of its config, and refuse what cannot go on.

    MMEngine takes the learning rate, weight decay, momentum and all numbers of the schedules from
    the checkpoint, whatever the config says. This hook changes the checkpoint before it is loaded:
    weights, averages and counters stay, settings become those of the run. Learning rates are those
    that the schedule of the run has at this place, as if it had been the schedule from the start.
    Where nothing differs, the checkpoint is left as it is.

    Args:
        path: The checkpoint, for messages.
    """

    priority = 'HIGHEST'  # an EMAHook exchanges the weights

    def __init__(self, path: str) -> None:
        self.path = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check and change the checkpoint.

        Raises:
            CheckpointError: It is of another model, or its optimizer has other parameters or
                another state.
        """
        self._check_model(runner, checkpoint)
        _set_averages(runner, checkpoint)
        _set_best(runner, checkpoint)
        checkpoint['meta'].pop('config', None)  # MMEngine would run it as a program
        new = runner.message_hub.state_dict()
        hub = checkpoint.get('message_hub') or {}
        if any(not isinstance(hub.get(key), type(value)) for key, value in new.items()):
            checkpoint['message_hub'] = new
        if not checkpoint.get('optimizer'):
            checkpoint.pop('optimizer', None)
        wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
        states = ['optimizer', *(['param_schedulers'] if schedulers else [])]
        moved, same = self._set_place(runner, checkpoint), _unchanged(runner, checkpoint)
        if same and not moved and all(checkpoint.get(key) for key in states):
            return
        if not isinstance(wrapper, OptimWrapperDict):
            resumed: Any = self._take_over(
                *(wrapper, checkpoint.get('optimizer'), schedulers),
                *(checkpoint.get('param_schedulers'), checkpoint['meta'], moved),
            )
        else:
            saved = checkpoint.get('optimizer') or {}
            if saved and set(saved) != set(wrapper.keys()):
                self._refuse(
                    f'is of optimizers named {shorten(list(saved))}, this run has '
                    f'{shorten(list(wrapper.keys()))}'
                )
            before = checkpoint.get('param_schedulers') or {}
            resumed = {
                name: self._take_over(
                    *(one, saved.get(name), schedulers[name] if schedulers else []),
                    *(before.get(name), checkpoint['meta'], moved),
                )
                for name, one in wrapper.items()
            }
        if schedulers:
            checkpoint['param_schedulers'] = resumed

    def _refuse(self, reason: str) -> NoReturn:
        raise refusal(self.path, reason)

    def _check_model(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse the weights of another model."""
        try:
            check_weights(runner.model, checkpoint, self.path, same_size=True)
        except CheckpointError as error:
            self._refuse(error.reason)

    def _set_place(self, runner: Runner, checkpoint: dict) -> bool:
        """Set where the run goes on, as whole epochs of this run; return whether that changed."""
        meta, loop = checkpoint['meta'], runner.train_loop
        then = (checkpoint['message_hub'].get('runtime_info') or {}).get(DATA)
        now = data_of(runner)
        for key, what in (('samples', 'training images'), ('processes', 'processes')):
            if then and then.get(key) != now[key]:
                warn(f'--resume: number of {what} {then.get(key)} -> {now[key]} since {self.path}')
        if not isinstance(loop, EpochBasedTrainLoop):
            return False
        length, epoch, number = len(loop.dataloader), meta['epoch'], meta['iter']
        if number == (epoch + 1) * length and then and then.get('length') == length:
            epoch += 1  # saved by iterations, right at the end of an epoch
        if (epoch, epoch * length) == (meta['epoch'], number):
            return False
        warn(
            f'--resume: {self.path} was saved in iteration {number}; this run continues at the '
            f'start of its epoch {epoch + 1}, iteration {epoch * length} ({length} per epoch)'
        )
        meta.update(epoch=epoch, iter=epoch * length)
        return True

    def _take_over(
        self,
        wrapper: Any,
        saved: dict[str, Any] | None,
        schedulers: Sequence[Any],
        before: list[dict[str, Any]] | None,
        meta: dict[str, Any],
        moved: bool,
    ) -> list[dict[str, Any]]:
        """Put the settings of this run into the state of one optimizer and of its schedulers.

        Args:
            wrapper: Optimizer wrapper of this run, at its start.
            saved: Its state in the checkpoint, which is changed; None if there is none.
            schedulers: Schedulers of this run, at its start.
            before: Their states in the checkpoint; None if there are none.
            meta: Epoch and iteration at which the run goes on.
            moved: Whether these are not those of the checkpoint.

        Returns:
            The states of the schedulers to load.
        """
        fresh, groups = [s.state_dict() for s in schedulers], wrapper.param_groups
        scheduled = {s.param_name for s in schedulers}
        if saved is None:
            warn(f'--resume: {self.path} has no optimizer state; the optimizer starts from scratch')
            then = groups
        else:
            reason = why_unfit(wrapper.optimizer, saved)
            if reason:
                self._refuse(reason)
            base = saved.get('base_param_settings')
            then = [*saved['param_groups'], *([base] if base else [])][: len(groups)]
            set_scaler(wrapper, saved)
        rates = all(same_settings(a, b, scheduled) for a, b in zip(groups, then, strict=False))
        alike = before is not None and len(before) == len(fresh)
        alike = alike and list(map(settings_of, fresh)) == list(map(settings_of, before or []))
        if saved is not None and rates and alike and not moved:
            return before or []
        if any(map(needs_metrics, schedulers)):
            return self._keep_metrics(schedulers, fresh, before, groups, then, scheduled, moved)
        states, values = advance(
            *(schedulers, groups, wrapper.optimizer.defaults), meta['epoch'], meta['iter']
        )
        for group, value in zip(then, values, strict=False):
            group.update(value)
        return states

    def _keep_metrics(
        self,
        schedulers: Sequence[Any],
        fresh: list[dict[str, Any]],
        before: list[dict[str, Any]] | None,
        groups: list[dict[str, Any]],
        then: list[dict[str, Any]],
        scheduled: set[str],
        moved: bool,
    ) -> list[dict[str, Any]]:
        """As :meth:`_take_over` for a schedule that follows metrics, of which the past is needed.

        Its own settings may change, the rates that it starts from and other schedules may not.
        """
        initial = [f'initial_{name}' for name in scheduled]
        kept = before is not None and len(before) == len(fresh) and then is not groups
        pairs = list(zip(groups, then, strict=False))
        kept = kept and all(new.get(k) == old.get(k) for k in initial for new, old in pairs)
        kept = kept and all(
            'num_bad_epochs' in old if needs_metrics(s) else settings_of(new) == settings_of(old)
            for s, new, old in zip(schedulers, fresh, before or [], strict=False)
        )
        if not kept or (moved and not all(map(needs_metrics, schedulers))):
            self._refuse(
                f'has no state for {type(next(filter(needs_metrics, schedulers))).__name__} with '
                'this optimizer and these schedules, and what it did so far cannot be computed'
            )
        for group, old in pairs:
            old |= {k: v for k, v in group.items() if not is_scheduled(k, {'params', *scheduled})}
        return [
            old | settings_of(new) if needs_metrics(s) else old
            for s, new, old in zip(schedulers, fresh, before or [], strict=False)
        ]


def _unchanged(runner: Runner, checkpoint: dict) -> bool:
    """Whether a run has the config and the batches of the one that wrote the checkpoint.

    Hooks of a user may have changed what a config says, and this is then left alone.
    """
    old = stored_config(checkpoint['meta'])
    then = (checkpoint['message_hub'].get('runtime_info') or {}).get(DATA)
    return old is not None and then == data_of(runner) and not changes(old, runner.cfg.to_dict())


def _set_averages(runner: Runner, checkpoint: dict) -> None:
    """Go on with the weights themselves if there is no ``EMAHook`` any more; say if one is new."""
    keeps = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    averages = checkpoint.get('ema_state_dict')
    if averages is None and keeps:
        warn('--resume: EMAHook is new; its averages begin with the weights of the checkpoint')
    if averages is not None and not keeps:
        # the two are exchanged in the file, so that tests find the averages
        for key in checkpoint['state_dict']:
            if f'module.{key}' in averages:
                checkpoint['state_dict'][key] = averages[f'module.{key}']
        del checkpoint['ema_state_dict']
        warn(
            '--resume: this run no longer has an EMAHook; training continues with the weights '
            'themselves, and their averages are dropped'
        )


def _set_best(runner: Runner, checkpoint: dict) -> None:
    """Forget the best score so far if it is one of another metric."""
    info = (checkpoint.get('message_hub') or {}).get('runtime_info') or {}
    best = os.path.basename(str(info.get('best_ckpt') or ''))
    for hook in runner.hooks:
        names = getattr(hook, 'key_indicators', None)
        if not isinstance(hook, CheckpointHook) or not names or 'auto' in names:
            continue
        if best and not any(best.startswith(f'best_{n.replace("/", "_")}_') for n in names):
            for key in ('best_score', 'best_ckpt'):
                info.pop(key, None)
            warn(
                f'--resume: the best checkpoint so far, {best}, is by another metric than '
                f'{shorten(names)}; the best one is determined again'
            )
