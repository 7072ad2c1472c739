_base_ = ['./recipes/mask-rcnn_convnext_ms-crop-3x_coco.py', './members/convnext-t.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.widths))
