_base_ = './cvt-13_8xb64-20k_in1k-384.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='hybrid_mm://cvt-13_in22k')))
