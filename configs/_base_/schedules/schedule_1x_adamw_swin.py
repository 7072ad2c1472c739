# As schedule_1x_adamw.py without weight decay for norms and tables of relative positions, as
# Swin is trained.
_base_ = './schedule_1x_adamw.py'

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(norm=dict(decay_mult=0.0), relative_bias=dict(decay_mult=0.0))
    )
)
