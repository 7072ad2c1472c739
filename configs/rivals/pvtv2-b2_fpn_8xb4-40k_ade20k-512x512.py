_base_ = ['./recipes/fpn_pvtv2_8xb4-40k_ade20k.py', './members/pvtv2-b2.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.widths))
