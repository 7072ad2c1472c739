_base_ = './van-b0_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b1_in1k'
model = dict(
    backbone=dict(arch='b1', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
