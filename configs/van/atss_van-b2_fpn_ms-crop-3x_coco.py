# The paper states AdamW, rate 1e-4, weight decay 0.05, batch 16 and the augmentation of Swin. Not
# published, so not verified: the steps (Swin's), warm-up, drop path rate and mode of batch norm
# (those of the LSKA paper's 1x configs).
_base_ = [
    '../_base_/models/atss_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://van-b2_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='b2',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
