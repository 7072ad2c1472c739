# The filters, made for 224 pixels, are interpolated when loaded.
_base_ = './hornet-large_32xb16-30e_in1k-384.py'

checkpoint = 'hybrid_mm://hornet-large-gf_in22k'
model = dict(backbone=dict(arch='large-gf384', init_cfg=dict(checkpoint=checkpoint)))
