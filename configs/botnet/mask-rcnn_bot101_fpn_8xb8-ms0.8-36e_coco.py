_base_ = './mask-rcnn_bot50_fpn_8xb8-ms0.8-36e_coco.py'

checkpoint = 'hybrid_mm://bot101-s1_in1k'
model = dict(backbone=dict(arch='bot101', init_cfg=dict(checkpoint=checkpoint)))
