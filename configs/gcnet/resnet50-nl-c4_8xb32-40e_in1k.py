# One block in c4, before its last residual block; the exact place is not published (unverified).
_base_ = './resnet50_8xb32-40e_in1k.py'

model = dict(
    backbone=dict(
        type='hybrid_mm.AttentionResNet',
        base='hybrid_mm.PluginResNet',
        stage_plugins=dict(
            cfg=dict(type='hybrid_mm.NonLocal2d', use_scale=False),
            stages=(False, False, True, False),
            position='before_last_block',
        ),
    )
)
