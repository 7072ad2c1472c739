_base_ = ['./recipes/mask-rcnn_swin_ms-crop-3x_coco.py', './members/swin-t.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.widths))
