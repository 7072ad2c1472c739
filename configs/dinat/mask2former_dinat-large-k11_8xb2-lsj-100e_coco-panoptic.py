# 200 queries, 100 epochs of 118,000 images at batch 16 = 737,500 iterations, trained in fp32. The
# drop path rate is not given; presumably (unverified) the weights are those of the 7 x 7 network
# with interpolated tables.
_base_ = [
    '../_base_/models/mask2former_r50.py',
    '../_base_/datasets/coco_panoptic_lsj.py',
    '../_base_/schedules/schedule_50e_mask2former.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.DiNAT',
        arch='large',
        kernel_size=11,
        dilations='mask2former',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dinat-large_in22k.pth'),
    ),
    panoptic_head=dict(in_channels=[192, 384, 768, 1536], num_queries=200),
)
train_cfg = dict(max_iters=737500, dynamic_intervals=[(735001, 737500)])
_base_.param_scheduler[0].end = 737500
_base_.param_scheduler[0].milestones = [655556, 710184]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
