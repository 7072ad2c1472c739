_base_ = './cvt-13_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://cvt-21_in1k'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
