_base_ = './cascade-mask-rcnn_mvitv2-base-in21k_fpn-ln_8xb8-lsj-100e_coco.py'

checkpoint = 'hybrid_mm://mvitv2-huge_in21k'
model = dict(
    backbone=dict(
        arch='huge', drop_path_rate=0.6, with_cp=True, init_cfg=dict(checkpoint=checkpoint)
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
# "36 epochs" of the authors, 36.8 of the images with annotations
train_cfg = dict(max_iters=67500, dynamic_intervals=[(65001, 67500)])
_base_.param_scheduler[1].update(end=67500, milestones=[52500, 62500])
optim_wrapper = dict(optimizer=dict(lr=1.6e-4))
