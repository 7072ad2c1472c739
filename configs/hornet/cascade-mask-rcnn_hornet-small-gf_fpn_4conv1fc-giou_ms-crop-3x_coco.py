_base_ = './cascade-mask-rcnn_hornet-small_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://hornet-small-gf_in1k'
model = dict(backbone=dict(arch='small-gf', init_cfg=dict(checkpoint=checkpoint)))
