_base_ = './retinanet_cvt-13_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://cvt-21_in1k'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
