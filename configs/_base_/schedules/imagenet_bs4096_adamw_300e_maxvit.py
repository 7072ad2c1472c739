# As imagenet_bs4096_adamw_300e.py for MaxViT: rate 3e-3 to 1e-5, 10,000 iterations of warm-up (32
# epochs), gradients clipped at norm 1, bfloat16; tables of relative positions do not decay.
_base_ = './imagenet_bs4096_adamw_300e.py'

_base_.param_scheduler[0].update(start_factor=2.5e-4, end=32)
_base_.param_scheduler[1].begin = 32
_base_.param_scheduler[1].eta_min = 1e-5
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale='dynamic',
    optimizer=dict(lr=3e-3),
    clip_grad=dict(_delete_=True, max_norm=1.0),
    paramwise_cfg=dict(custom_keys=dict(relative_bias=dict(decay_mult=0.0))),
)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True)]
