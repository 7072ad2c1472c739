_base_ = './retinanet_san10-acmix_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://san15-acmix_in1k'
model = dict(backbone=dict(arch='san15', init_cfg=dict(checkpoint=checkpoint)))
