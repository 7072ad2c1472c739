# One block in c4, before its last residual block, where Non-local Networks has its own.
_base_ = './mask-rcnn_r50-syncbn_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        type='hybrid_mm.AttentionResNet',
        base='ResNet',
        stage_plugins=dict(
            cfg=dict(type='hybrid_mm.ContextBlock', ratio=1 / 16),
            stages=(False, False, True, False),
            position='before_last_block',
        ),
    )
)
