_base_ = './cascade-mask-rcnn_mvitv2-tiny_fpn_8xb8-ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://mvitv2-base_in1k'
model = dict(backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)))
