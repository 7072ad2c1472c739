# It is unverified which of the two ImageNet-22k checkpoints, of 224 or 384 pixels, was used.
_base_ = './cascade-mask-rcnn_hornet-large_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://hornet-large-gf_in22k-384'
model = dict(backbone=dict(arch='large-gf384', init_cfg=dict(checkpoint=checkpoint)))
