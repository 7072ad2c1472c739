_base_ = ['./recipes/cascade-mask-rcnn_swin_ms-crop-3x_coco.py', './members/swin-s.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.widths))
