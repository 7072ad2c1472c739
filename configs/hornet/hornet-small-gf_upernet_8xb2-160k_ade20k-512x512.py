# The filters, made for 224 pixels, are interpolated when loaded.
_base_ = './hornet-small_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://hornet-small-gf_in1k'
model = dict(backbone=dict(arch='small-gf384', init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2))
