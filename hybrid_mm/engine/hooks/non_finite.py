"""Stop of a training whose loss is no number, before it spoils the weights."""

from functools import partial

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from hybrid_mm.errors import UserError, shorten
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop at a loss that is NaN or infinite, before the optimizer takes its step.

    The state of the training, from before the step, is saved as ``non_finite_iter_N.pth`` in the
    work dir by the first process if the loss is its own (auto-resume leaves the file alone), and
    the error names the images of the batch. Reading the loss costs one synchronisation with the GPU
    per iteration.

    Example:
        >>> custom_hooks = [dict(type='hybrid_mm.NonFiniteLossHook')]
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._batch: object = None

    def before_train(self, runner: Runner) -> None:
        """Put the check in front of the optimizer's step."""
        wrapper = runner.optim_wrapper
        wrapper.update_params = partial(self._step, runner, wrapper.update_params)

    def after_train(self, runner: Runner) -> None:
        """Take the check away again."""
        vars(runner.optim_wrapper).pop('update_params', None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Keep the batch for the message."""
        self._batch = data_batch

    def _step(self, runner: Runner, update_params, loss: Tensor, *args, **kwargs) -> None:
        if not torch.isfinite(loss).all():
            self._stop(runner, loss)
        update_params(loss, *args, **kwargs)

    def _stop(self, runner: Runner, loss: Tensor) -> None:
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
    """Files of the images of a batch of any of the OpenMMLab libraries."""
    samples = batch.get('data_samples', ()) if isinstance(batch, dict) else ()
    paths = (getattr(sample, 'metainfo', {}).get('img_path') for sample in samples)
    return [str(path) for path in paths if path]
