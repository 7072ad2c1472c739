"""Curves of the rates at which the layers of ACmix mix attention and convolution."""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.registry import HOOKS


def mixing_layers(model: nn.Module) -> Iterator[tuple[str, float, float]]:
    """Yield name, rate of attention and rate of convolution of every ACmix layer, in order.

    Args:
        model: Any module; an ACmix layer is recognised by its parameters ``rate1`` and ``rate2``.
    """
    for name, module in model.named_modules():
        own = module._parameters
        if own.get('rate1') is not None and own.get('rate2') is not None:
            yield name, own['rate1'].item(), own['rate2'].item()


@HOOKS.register_module()
class MixingRatesHook(Hook):
    """Write the rates of ACmix (arXiv 2111.14556, equation 13) to the visualizer's scalars.

    The names are ``rate1/LAYER`` (attention) and ``rate2/LAYER`` (convolution), the steps are
    iterations: before the first one, every ``interval``, and after the last one.
    ``tools/analysis/mixing_rates.py WORK_DIR`` draws them.

    ``custom_hooks=[dict(type='hybrid_mm.MixingRatesHook')]`` in any config.

    Args:
        interval: Iterations from one entry to the next.

    Raises:
        ValueError: An interval below 1; at the start of training, a model without ACmix.
    """

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'MixingRatesHook: interval must be at least 1, got {interval}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Write the initial rates, or refuse a model without any."""
        if not self._write(runner, runner.iter):
            raise ValueError(
                'MixingRatesHook: the model has no layer of ACmix (none with parameters rate1 and '
                'rate2); take the hook out of custom_hooks'
            )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | Sequence | None = None,
    ) -> None:
        """Write the rates at every interval and after the last iteration."""
        last = runner.iter + 1 == runner.max_iters
        if last or self.every_n_train_iters(runner, self.interval):
            self._write(runner, runner.iter + 1)

    @staticmethod
    def _write(runner: Runner, step: int) -> bool:
        """Write the rates; return whether there are any."""
        model = inner_model(runner.model)
        scalars = {}
        for name, attention, convolution in mixing_layers(model):
            scalars |= {f'rate1/{name}': attention, f'rate2/{name}': convolution}
        if scalars:
            runner.visualizer.add_scalars(scalars, step=step)
        return bool(scalars)
