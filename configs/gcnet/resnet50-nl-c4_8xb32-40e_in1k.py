_base_ = './resnet50-gcb-r16-c4_8xb32-40e_in1k.py'

model = dict(
    backbone=dict(
        stage_plugins=dict(cfg=dict(_delete_=True, type='hybrid_mm.NonLocal2d', use_scale=False))
    )
)
