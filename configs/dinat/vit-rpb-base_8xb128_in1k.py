# A longer warm-up, and a moving average of the weights is evaluated.
_base_ = './vit-rpb-small_8xb128_in1k.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=768, num_heads=[24]), drop_path_rate=0.4),
    head=dict(in_channels=768),
)
_base_.param_scheduler[0].end = 50
custom_hooks = [dict(type='EMAHook', momentum=2e-4)]  # decay 0.9998
