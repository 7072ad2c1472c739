# The last map of PVT-S alone.
_base_ = './detr_r50_8xb2-50e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PVT',
        arch='small',
        drop_path_rate=0.1,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://pvt-s_in1k'),
    ),
    neck=dict(in_channels=[512]),
)
