# From scratch. Recalled from the paper, unverified: the jitter of 512 to 768, the rate of 0.08
# for 8 GPUs x 8 images with cosine decay, and batch norm that is trained.
# Attention sees 40 x 40 positions in C3 (at half its resolution) and in C4, 20 x 20 in C5.
_base_ = [
    '../_base_/models/retinanet_r50_fpn_scratch.py',
    '../_base_/datasets/coco_detection_640x640.py',
    '../_base_/schedules/schedule_150e_cosine.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.AAResNet',
        arch='r50',
        canvas_size=(640, 640),
        norm_cfg=dict(type='SyncBN'),
    )
)
