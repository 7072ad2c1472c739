_base_ = './levit-256_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://levit-384_in1k'
model = dict(
    backbone=dict(arch='384', drop_path_rate=0.1, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 192, 384, 512]),
    auxiliary_head=dict(in_channels=384),
)
