_base_ = './deit-base_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    neck=dict(type='MultiLevelNeck', in_channels=[768] * 4, out_channels=768, scales=[4, 2, 1, 0.5])
)
