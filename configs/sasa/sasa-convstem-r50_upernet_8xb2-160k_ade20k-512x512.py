_base_ = './sasa-r50_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://sasa-convstem-r50_in1k'
model = dict(backbone=dict(stem='conv', init_cfg=dict(checkpoint=checkpoint)))
