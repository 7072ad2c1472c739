_base_ = './coatnet-0-rw_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://coatnet-1-rw_in1k'
model = dict(
    backbone=dict(arch='1-rw', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
