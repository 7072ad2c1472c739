# Our recipe.
_base_ = './mvitv2-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://mvitv2-large_in1k'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[144, 288, 576, 1152]),
    auxiliary_head=dict(in_channels=576),
)
