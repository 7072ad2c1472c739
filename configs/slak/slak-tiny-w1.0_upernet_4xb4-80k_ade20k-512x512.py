_base_ = './slak-tiny_upernet_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://slak-tiny-w1.0_120e_in1k'
model = dict(
    backbone=dict(width_factor=1.0, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
