_base_ = './cvt-13_8xb64-20k_in1k-384.py'

checkpoint = 'hybrid_mm://cvt-w24_in22k'
model = dict(
    backbone=dict(arch='w24', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=1024),
)
