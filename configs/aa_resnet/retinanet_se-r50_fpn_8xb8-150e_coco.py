_base_ = './retinanet_r50_fpn_8xb8-150e_coco.py'

se = dict(cfg=dict(type='hybrid_mm.SE'), position='after_conv3')
model = dict(backbone=dict(plugins=[se]))
