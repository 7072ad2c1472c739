_base_ = './mask-rcnn_r101_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='hybrid_mm.ContextBlock', ratio=1 / 16),
                stages=(False, True, True, True),
                position='after_conv3',
            )
        ]
    )
)
