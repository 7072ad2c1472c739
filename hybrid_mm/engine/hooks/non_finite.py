"""Stop of a training whose loss is not finite, before it spoils the weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from hybrid_mm.errors import UserError, shorten
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop at a loss that is NaN or infinite, before the optimizer takes its step.

    The error names the images of the batch. If the loss is that of the first process, the state
    from before the step is saved in the work dir as ``non_finite_iter_N.pth``, which auto-resume
    ignores. Reading the loss costs one synchronisation with the GPU per iteration.

    Example:
        >>> custom_hooks = [dict(type='hybrid_mm.NonFiniteLossHook')]
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._batch: object = None

    def before_train(self, runner: Runner) -> None:
        """Wrap the optimizer's step in the check."""
        wrapper = runner.optim_wrapper
        wrapper.update_params = partial(self._step, runner, wrapper.update_params)

    def after_train(self, runner: Runner) -> None:
        """Remove the check."""
        vars(runner.optim_wrapper).pop('update_params', None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Keep the batch for the message of an error."""
        self._batch = data_batch

    def _step(
        self,
        runner: Runner,
        update_params: Callable[..., None],
        loss: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """``update_params`` of the optimizer wrapper for a finite loss, else an error."""
        if not torch.isfinite(loss).all():
            self._stop(runner, loss)
        update_params(loss, *args, **kwargs)

    def _stop(self, runner: Runner, loss: Tensor) -> NoReturn:
        """Save the state and raise the error."""
        name = f'non_finite_iter_{runner.iter}.pth'
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        runner.save_checkpoint(runner.work_dir, name, meta=meta, by_epoch=False)
        images = shorten(image_paths(self._batch), 8) or 'not known'
        raise UserError(
            f'the loss of iteration {runner.iter + 1} is {float(loss.detach())}; images of the '
            f'batch: {images}. The state from before the step is in {runner.work_dir}/{name}. '
            'Common causes: a learning rate that is too high, no warm-up or gradient clipping, '
            'float16, or broken annotations'
        )


def image_paths(batch: object) -> list[str]:
    """Paths of the images of a batch of any OpenMMLab library; empty if it does not know them."""
    samples = batch.get('data_samples', ()) if isinstance(batch, dict) else ()
    paths = (getattr(sample, 'metainfo', {}).get('img_path') for sample in samples)
    return [str(path) for path in paths if path]
