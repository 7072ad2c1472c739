_base_ = './mask-rcnn_elsa-swin-t_fpn_ms-crop-3x_coco.py'

model = dict(backbone=dict(drop_path_rate=0.1))
train_cfg = dict(max_epochs=12)
_base_.param_scheduler[1].update(end=12, milestones=[8, 11])
