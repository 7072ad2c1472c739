"""Layer-wise learning-rate decay for detectors, segmenters and classifiers."""

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from hybrid_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Scale the learning rate of layer i of n by ``layer_decay_rate ** (n - 1 - i)``.

    Source: "ELECTRA" (arXiv 2003.10555), section 3.3, as BEiT and its followers apply it to
    backbones. Everything behind the backbone keeps the full rate. Layers are counted by the
    backbone's ``get_layer_depth``, or by stages and ``get_stage_depth``; a model without it is a
    ``TypeError``.

    ``paramwise_cfg`` takes ``layer_decay_rate`` in (0, 1], ``layer_decay_by``, 'layer' (the
    default) or 'stage', and ``num_layers``, a number L of layers from which a recipe counts instead
    of the backbone's own (layer i gets ``layer_decay_rate ** (L + 1 - i)``), beside the keys of
    MMEngine's ``DefaultOptimWrapperConstructor``, which keep their meaning (``flat_decay_mult=0``
    for one: no weight decay on biases, norms and layer scales).

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
        """Fill the parameter groups, one per parameter, with their scaled rates."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # MMEngine descends through the submodules by this method
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
