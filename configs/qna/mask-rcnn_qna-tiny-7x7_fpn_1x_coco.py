_base_ = './mask-rcnn_qna-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://qna-tiny-7x7_in1k'
model = dict(backbone=dict(arch='tiny-7x7', init_cfg=dict(checkpoint=checkpoint)))
