_base_ = './retinanet_aa-r50_fpn_8xb8-150e_coco.py'

model = dict(backbone=dict(arch='r101'))
