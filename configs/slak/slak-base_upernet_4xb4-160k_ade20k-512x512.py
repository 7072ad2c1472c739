_base_ = './slak-tiny_upernet_4xb4-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://slak-base_in1k'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[166, 332, 665, 1331]),
    auxiliary_head=dict(in_channels=665),
)
