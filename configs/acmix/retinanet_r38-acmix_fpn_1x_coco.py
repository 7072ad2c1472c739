# Not in the paper, which has ResNet-50.
_base_ = './retinanet_r50-acmix_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://r38-acmix_in1k'
model = dict(backbone=dict(arch='r38', init_cfg=dict(checkpoint=checkpoint)))
