# As schedule_bs64_lsj-100e_adamw.py with layer-wise decay of the learning rate, as for ViTDet-B.
_base_ = './schedule_bs64_lsj-100e_adamw.py'

optim_wrapper = dict(
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, custom_keys={'stem.position': dict(decay_mult=0.0)}),
)
