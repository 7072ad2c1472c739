_base_ = './mask-rcnn_bot152_fpn_8xb8-ms0.1-1280-72e_coco.py'

checkpoint = 'hybrid_mm://bot200-s1_in1k'
model = dict(backbone=dict(arch='bot200', init_cfg=dict(checkpoint=checkpoint)))
