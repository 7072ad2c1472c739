# As imagenet_bs1024_adamw_300e_swin.py with DeiT's recipe: rates by epoch, 5 epochs of warm-up (a
# LinearLR is through one step before its end), gradients not clipped; no weight decay for biases,
# norms, other vectors and scalars, and class tokens.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

_base_.param_scheduler[0].update(end=6, convert_to_iter_based=False)
_base_.param_scheduler[1].convert_to_iter_based = False
optim_wrapper = dict(
    clip_grad=None,
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, class_token=dict(decay_mult=0.0))),
)
