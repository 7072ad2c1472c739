# As imagenet_bs1024_adamw_300e_swin.py with DeiT's recipe: 5 epochs of warm-up, gradients not
# clipped; no weight decay for biases, norms, other vectors and scalars, and class tokens.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

_base_.param_scheduler[0].end = 5
# timm's cosine runs by epoch and begins under the warm-up
_base_.param_scheduler[1].update(begin=0, convert_to_iter_based=False)
optim_wrapper = dict(
    clip_grad=None,
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, class_token=dict(decay_mult=0.0))),
)
