_base_ = './cascade-mask-rcnn_mvitv2-base-in21k_fpn-ln_8xb8-lsj-100e_coco.py'

checkpoint = 'checkpoints/mvitv2-huge_in21k.pth'
model = dict(
    backbone=dict(
        arch='huge', drop_path_rate=0.6, with_cp=True, init_cfg=dict(checkpoint=checkpoint)
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
# 36 epochs of 118,000 images in batches of 64 = 66,375 iterations
train_cfg = dict(max_iters=66375, dynamic_intervals=[(65001, 66375)])
_base_.param_scheduler[1].update(end=66375, milestones=[59000, 63916])
optim_wrapper = dict(optimizer=dict(lr=1.6e-4))
