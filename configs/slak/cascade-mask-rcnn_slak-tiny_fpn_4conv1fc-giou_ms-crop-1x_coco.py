_base_ = './cascade-mask-rcnn_slak-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://slak-tiny_120e_in1k'
model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))
train_cfg = dict(max_epochs=12)
_base_.param_scheduler[1].update(end=12, milestones=[8, 11])
