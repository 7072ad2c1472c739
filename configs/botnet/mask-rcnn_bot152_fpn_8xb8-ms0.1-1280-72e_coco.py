# The paper states 72 epochs and no test-time augmentation. No source states the rest: the canvas of
# 1280 x 1280 and the jitter of 0.1 to 2 are from memory, the recipe is that of the smaller models.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/datasets/coco_instance_1280x1280_ms0.1.py',
    '../_base_/schedules/schedule_bs64_72e.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://bot152-s1_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.BoTNet',
        arch='bot152',
        shortcut_act=True,
        canvas_size=(1280, 1280),
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
