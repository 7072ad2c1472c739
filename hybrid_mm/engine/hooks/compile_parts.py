"""Compilation of a part of a model, such as the backbone, in training and evaluation."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.compat.torch_api import COMPILES
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile a part of the model by ``torch.compile``.

    MMEngine's own ``compile = True`` traces the whole step, including losses that draw samples and
    the optimizer, and fails with some versions of torch. Here the names of parameters do not
    change: checkpoints fit a run without the hook. A new image size may be compiled anew, or all
    sizes at once with ``dynamic=True``.

    On a CPU, unless the arguments say otherwise, torch's compiler leaves the memory format of
    convolutions as it is: what it gains by channels last, the operators around them lose in
    training.

    Args:
        module: Name of the part within the model.
        **options: Arguments of ``torch.compile``, such as ``dynamic`` or ``mode``.

    Raises:
        UserError: At the start of the run, the model has no such part.

    Example:
        >>> custom_hooks = [dict(type='hybrid_mm.CompileHook')]
    """

    def __init__(self, module: str = 'backbone', **options: object) -> None:
        self.module, self.options = module, options

    def before_run(self, runner: Runner) -> None:
        """Mark the part for compilation, which happens at its first call."""
        model = inner_model(runner.model)
        parts = dict(model.named_modules())
        if self.module not in parts:
            raise UserError(
                f'CompileHook: {type(model).__name__} has no part {self.module!r}'
                f'{nearest(self.module, parts)}'
            )
        part = parts[self.module]
        if not COMPILES and any(_is_left_as_it_is(module) for module in part.modules()):
            runner.logger.warning(
                f'CompileHook: torch {torch.__version__} cannot compile the networks of this '
                'package, which run as they are; torch 2.4 or newer can'
            )
        options = dict(self.options)
        on_cpu = all(p.device.type == 'cpu' for p in part.parameters())
        if on_cpu and not {'mode', 'options', 'backend'} & options.keys():
            options['options'] = dict(layout_optimization=False)
        part.compile(**options)


def _is_left_as_it_is(module: nn.Module) -> bool:
    """Whether ``torch.compiler.disable`` is on the module's ``forward``."""
    return bool(getattr(module.forward, '_torchdynamo_disable', False))
