_base_ = './mask-rcnn_elsa-swin-t_fpn_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://elsa-swin-s_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.75, init_cfg=dict(checkpoint=checkpoint)))
