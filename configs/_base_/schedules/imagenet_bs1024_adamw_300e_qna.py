# AdamW for ImageNet-1k with the recipe of QnA-ViT: 5 epochs of warm-up, cosine to 0 at epoch 300;
# weight decay on everything, biases and norms too, but tables of relative positions and weights of
# the queries by position. Mixed precision.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

_base_.param_scheduler[0].update(start_factor=1e-6, end=5)
_base_.param_scheduler[1].update(eta_min=0.0, begin=5)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(lr=2e-3),
    clip_grad=None,
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={'relative_bias': dict(decay_mult=0.0), 'attn.scale': dict(decay_mult=0.0)},
    ),
)
