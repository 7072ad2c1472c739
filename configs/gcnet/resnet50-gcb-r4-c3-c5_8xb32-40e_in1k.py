_base_ = './resnet50_8xb32-40e_in1k.py'

model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='hybrid_mm.ContextBlock', ratio=1 / 4),
                stages=(False, True, True, True),
                position='after_conv3',
            )
        ]
    )
)
