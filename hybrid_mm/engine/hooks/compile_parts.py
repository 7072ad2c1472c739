"""Compilation of a part of a model, as its backbone, during training and evaluation."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile a part of the model by ``torch.compile``.

    MMEngine's own ``compile = True`` traces the whole step, with losses that draw samples and with
    the optimizer, and fails with some versions of torch. Names of parameters do not change, so that
    checkpoints are those of a run without the hook. Every new size of the image may be compiled
    anew, or once for all with ``dynamic=True``.

    Args:
        module: Name of the part within the model.
        options: Of ``torch.compile``, as ``dynamic`` or ``mode``.

    Raises:
        UserError: The model has no such part.

    Example:
        >>> custom_hooks = [dict(type='hybrid_mm.CompileHook')]
    """

    def __init__(self, module: str = 'backbone', **options: object) -> None:
        self.module, self.options = module, options

    def before_run(self, runner: Runner) -> None:
        """Compile the part; it is traced at its first call."""
        model = inner_model(runner.model)
        parts = dict(model.named_modules())
        if self.module not in parts:
            raise UserError(
                f'CompileHook: {type(model).__name__} has no part {self.module!r}'
                f'{nearest(self.module, parts)}'
            )
        parts[self.module].compile(**self.options)
