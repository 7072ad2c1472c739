_base_ = './mask-rcnn_bot50_fpn_8xb8-ms0.8-36e_coco.py'

# 21,996 iterations
train_cfg = dict(max_epochs=12)
_base_.param_scheduler[1].update(end=12, milestones=[10, 11])
