_base_ = './dinat-mini_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://dinat-s-tiny_in1k'
model = dict(
    backbone=dict(
        type='hybrid_mm.DiNATs',
        arch='tiny',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
