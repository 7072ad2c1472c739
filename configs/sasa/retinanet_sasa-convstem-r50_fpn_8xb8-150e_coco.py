_base_ = './retinanet_sasa-r50_fpn_8xb8-150e_coco.py'

model = dict(backbone=dict(stem='conv'))
