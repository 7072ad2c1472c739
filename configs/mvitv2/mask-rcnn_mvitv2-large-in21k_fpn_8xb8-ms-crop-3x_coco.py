_base_ = './mask-rcnn_mvitv2-large_fpn_8xb8-ms-crop-3x_coco.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='hybrid_mm://mvitv2-large_in21k')))
