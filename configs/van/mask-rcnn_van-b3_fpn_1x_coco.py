_base_ = './mask-rcnn_van-b1_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-b3_in1k'
model = dict(backbone=dict(arch='b3', init_cfg=dict(checkpoint=checkpoint)))
