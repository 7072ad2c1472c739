"""Layer-wise learning-rate decay for detectors, segmenters and classifiers."""

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from hybrid_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Scale the learning rate of layer i of n by ``layer_decay_rate ** (n - 1 - i)``.

    Source: "ELECTRA" (arXiv 2003.10555), section 3.3, as BEiT and its followers apply it to
    backbones. Everything after the backbone keeps the full rate. The backbone counts its layers, by
    ``get_layer_depth`` or, for stages, ``get_stage_depth``.

    Keys of ``paramwise_cfg``, besides those of MMEngine's ``DefaultOptimWrapperConstructor`` (such
    as ``flat_decay_mult=0``: no weight decay on biases, norms and layer scales):

    - ``layer_decay_rate``: in (0, 1].
    - ``layer_decay_by``: 'layer' (the default) or 'stage'.
    - ``num_layers``: the number L from which a recipe counts instead of the backbone's own; layer i
      then gets ``layer_decay_rate ** (L + 1 - i)``.

    Args:
        optim_wrapper_cfg: ``optim_wrapper`` of the config, without ``constructor`` and
            ``paramwise_cfg``.
        paramwise_cfg: The keys above; ``layer_decay_rate`` is required.

    Raises:
        ValueError: A key has no such value.
        TypeError: The backbone of the model does not count its layers.

    Example:
        >>> optim_wrapper = dict(
        ...     type='OptimWrapper',
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
        ...     paramwise_cfg=dict(layer_decay_rate=0.9, flat_decay_mult=0.0))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.layer_decay_rate = (paramwise_cfg or {}).get('layer_decay_rate')
        if self.layer_decay_rate is None or not 0 < self.layer_decay_rate <= 1:
            raise ValueError(
                'paramwise_cfg needs layer_decay_rate in (0, 1], '
                f'got layer_decay_rate={self.layer_decay_rate}'
            )
        by = paramwise_cfg.get('layer_decay_by', 'layer')
        if by not in ('layer', 'stage'):
            raise ValueError(f"layer_decay_by must be 'layer' or 'stage', got {by!r}")
        self.count = f'get_{by}_depth'
        self.num_layers = paramwise_cfg.get('num_layers')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Append one group per parameter to ``params``, with its scaled learning rate."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # MMEngine calls this method for every submodule as well
            return
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, self.count):
            raise TypeError(
                f'layer-wise decay needs model.backbone.{self.count}, which '
                f'{type(backbone).__name__} lacks'
            )
        names = {id(p): name for name, p in module.named_parameters()}
        scales: dict[int, float] = {}
        for group in params:
            (parameter,) = group['params']
            name = names[id(parameter)]
            layer, total = getattr(backbone, self.count)(name, 'backbone.')
            exponent = total - 1 - layer
            if exponent and self.num_layers is not None:
                exponent = self.num_layers + 1 - layer
            scales[layer] = self.layer_decay_rate**exponent
            group['lr'] = group.get('lr', self.base_lr) * scales[layer]
        table = ', '.join(f'{layer}: {scale:.3g}' for layer, scale in sorted(scales.items()))
        print_log(f'learning-rate scale by layer: {table}', 'current')
