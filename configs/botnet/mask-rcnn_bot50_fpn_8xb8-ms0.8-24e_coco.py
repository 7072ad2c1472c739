_base_ = './mask-rcnn_bot50_fpn_8xb8-ms0.8-36e_coco.py'

# 43,992 iterations
train_cfg = dict(max_epochs=24)
_base_.param_scheduler[1].update(end=24, milestones=[21, 23])
