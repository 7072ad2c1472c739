_base_ = './cvt-13_8xb64-20k_in1k-384.py'

checkpoint = 'hybrid_mm://cvt-21_in22k'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
