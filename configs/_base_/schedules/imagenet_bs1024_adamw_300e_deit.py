# As imagenet_bs1024_adamw_300e_swin.py with DeiT's recipe: 5 epochs of warm-up, gradients not
# clipped; no weight decay for biases, norms, other vectors and scalars, and class tokens.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

_base_.param_scheduler[0].end = 5
_base_.param_scheduler[1].begin = 5
optim_wrapper = dict(
    clip_grad=None,
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, class_token=dict(decay_mult=0.0))),
)
