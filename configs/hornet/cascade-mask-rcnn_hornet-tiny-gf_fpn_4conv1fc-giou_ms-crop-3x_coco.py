_base_ = './cascade-mask-rcnn_hornet-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://hornet-tiny-gf_in1k'
model = dict(backbone=dict(arch='tiny-gf', init_cfg=dict(checkpoint=checkpoint)))
