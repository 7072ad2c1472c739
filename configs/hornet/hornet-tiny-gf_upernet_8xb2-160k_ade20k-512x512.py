# The filters, made for 224 pixels, are interpolated when loaded.
_base_ = './hornet-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://hornet-tiny-gf_in1k'
model = dict(backbone=dict(arch='tiny-gf384', init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2))
