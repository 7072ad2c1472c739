# 3/4 of the schedule; weight decay on every parameter. Patches of 14 pixels are interpolated.
_base_ = './cascade-mask-rcnn_vitdet-base_8xb8-lsj-100e_coco.py'

checkpoint = 'hybrid_mm://mae-huge_in1k'
model = dict(
    backbone=dict(
        arch='huge', drop_path_rate=0.5, with_cp=True, init_cfg=dict(checkpoint=checkpoint)
    ),
    neck=dict(in_channels=1280),
)
train_cfg = dict(max_iters=138281, dynamic_intervals=[(135001, 138281)])
_base_.param_scheduler[1].update(end=138281, milestones=[122916, 133159])
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.9))
