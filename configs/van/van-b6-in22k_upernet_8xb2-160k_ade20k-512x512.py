_base_ = './van-b0_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b6_in22k'
model = dict(
    backbone=dict(arch='b6', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
