_base_ = './cascade-mask-rcnn_elsa-swin-t_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

model = dict(backbone=dict(drop_path_rate=0.0))
train_cfg = dict(max_epochs=12)
_base_.param_scheduler[1].update(end=12, milestones=[8, 11])
