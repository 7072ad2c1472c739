_base_ = './cascade-mask-rcnn_x101-32x4d-syncbn_fpn_1x_coco.py'

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
