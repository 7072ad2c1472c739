_base_ = './sasa-r50_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://sasa-convstem-r50_in1k'
model = dict(backbone=dict(stem='conv', init_cfg=dict(checkpoint=checkpoint)))
