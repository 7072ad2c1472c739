# As schedule_160k_adamw.py with decay of the learning rate by stages, as ConvNeXt and its followers
# are trained: no weight decay for vectors.
_base_ = './schedule_160k_adamw.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay_rate=0.9,
        layer_decay_by='stage',
        flat_decay_mult=0.0,
    ),
)

# 4 GPUs x 4 crops
