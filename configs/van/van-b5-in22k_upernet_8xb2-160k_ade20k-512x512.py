_base_ = './van-b0_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b5_in22k'
model = dict(
    backbone=dict(arch='b5', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 192, 480, 768]),
    auxiliary_head=dict(in_channels=480),
)
