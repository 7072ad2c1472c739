_base_ = './cascade-mask-rcnn_mvitv2-base_fpn_8xb8-ms-crop-3x_coco.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='hybrid_mm://mvitv2-base_in21k')))
