_base_ = './cascade-mask-rcnn_swin-t-acmix_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://swin-s-acmix_in1k'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
