# AdamW, 24 epochs, steps at 16 and 22, constant warm-up at a third of the rate, clipped gradients
# and no weight decay for norms.
_base_ = './schedule_2x.py'

_base_.param_scheduler[0] = dict(
    type='ConstantLR', factor=1.0 / 3, by_epoch=False, begin=0, end=500
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)

# 8 GPUs x 2 images
