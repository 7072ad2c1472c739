_base_ = './mask-rcnn_bot50_fpn_8xb8-ms0.8-36e_coco.py'

# 131,976 iterations
train_cfg = dict(max_epochs=72)
_base_.param_scheduler[1].update(end=72, milestones=[64, 68])
