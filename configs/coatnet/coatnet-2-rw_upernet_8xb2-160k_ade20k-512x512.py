_base_ = './coatnet-0-rw_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://coatnet-2-rw_in1k'
model = dict(
    backbone=dict(arch='2-rw', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
