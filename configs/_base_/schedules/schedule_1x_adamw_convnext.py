# As schedule_1x_adamw.py with layer-wise decay of the learning rate, as ConvNeXt and its
# followers are trained: no weight decay for vectors.
_base_ = './schedule_1x_adamw.py'

_base_.param_scheduler[0].end = 500
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, flat_decay_mult=0.0),
)
