_base_ = './deit-small_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(final_norm=True),
    neck=dict(
        type='MultiLevelNeck', in_channels=[384] * 4, out_channels=384, scales=[4, 2, 1, 0.5]
    ),
)
