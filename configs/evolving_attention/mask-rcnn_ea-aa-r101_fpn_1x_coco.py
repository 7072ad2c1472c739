_base_ = './mask-rcnn_ea-aa-r50_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://ea-aa-r101_in1k'
model = dict(backbone=dict(arch='r101', init_cfg=dict(checkpoint=checkpoint)))
