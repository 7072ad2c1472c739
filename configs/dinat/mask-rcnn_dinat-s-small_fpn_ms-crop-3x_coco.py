_base_ = './mask-rcnn_dinat-s-tiny_fpn_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://dinat-s-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.35, init_cfg=dict(checkpoint=checkpoint)))
