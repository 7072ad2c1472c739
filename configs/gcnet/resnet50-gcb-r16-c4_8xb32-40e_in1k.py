# One block in c4, before its last residual block, where Non-local Networks has its own.
_base_ = './resnet50_8xb32-40e_in1k.py'

model = dict(
    backbone=dict(
        type='hybrid_mm.AttentionResNet',
        base='hybrid_mm.PluginResNet',
        stage_plugins=dict(
            cfg=dict(type='hybrid_mm.ContextBlock', ratio=1 / 16),
            stages=(False, False, True, False),
            position='before_last_block',
        ),
    )
)
