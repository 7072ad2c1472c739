_base_ = ['./recipes/retinanet_pvtv2_1x_coco.py', './members/pvtv2-b2.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.widths))
