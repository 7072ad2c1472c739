# The paper states AdamW, rate 1e-4, weight decay 0.05, batch 16. Not published, so not verified:
# the steps, warm-up, drop path rate and mode of batch norm, which are those of the LSKA paper's
# configs.
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x_adamw.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://van-b0_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='b0',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
