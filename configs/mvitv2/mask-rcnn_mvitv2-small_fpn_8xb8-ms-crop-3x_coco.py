# No official file: the recipe of MViTv2-T with the drop path of the cascade (unverified).
_base_ = './mask-rcnn_mvitv2-tiny_fpn_8xb8-ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://mvitv2-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint=checkpoint)))
