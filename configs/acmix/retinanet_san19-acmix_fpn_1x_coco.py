_base_ = './retinanet_san10-acmix_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://san19-acmix_in1k'
model = dict(backbone=dict(arch='san19', init_cfg=dict(checkpoint=checkpoint)))
