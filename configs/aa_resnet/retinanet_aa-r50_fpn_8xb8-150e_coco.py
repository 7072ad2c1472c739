# Attention has 40 x 40 positions in C3 (at half its resolution) and in C4, 20 x 20 in C5.
_base_ = './retinanet_r50_fpn_8xb8-150e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.AAResNet',
        arch='r50',
        canvas_size=(640, 640),
        norm_cfg=dict(type='SyncBN'),
    )
)
