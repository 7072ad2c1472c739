# As imagenet_bs1024_adamw_300e_swin.py with 70 epochs of warm-up and gradients clipped at norm 1,
# as MViTv2 is trained: for 256 images warm-up from 1e-8 to 2.5e-4 and cosine to 1e-6, all three
# proportional to the batch.
_base_ = './imagenet_bs1024_adamw_300e_swin.py'

_base_.param_scheduler[0].update(start_factor=4e-5, end=70)
_base_.param_scheduler[1].update(eta_min=4e-6, begin=70)
optim_wrapper = dict(
    clip_grad=dict(max_norm=1.0), paramwise_cfg=dict(custom_keys=dict(_delete_=True))
)
