_base_ = './cascade-mask-rcnn_dinat-mini_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://dinat-tiny_in1k'
model = dict(backbone=dict(arch='tiny', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)))
