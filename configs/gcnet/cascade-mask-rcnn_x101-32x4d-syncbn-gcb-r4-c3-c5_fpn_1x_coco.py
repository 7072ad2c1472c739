_base_ = './cascade-mask-rcnn_x101-32x4d-syncbn-gcb-r16-c3-c5_fpn_1x_coco.py'

_base_.model.backbone.plugins[0].cfg.ratio = 1 / 4
