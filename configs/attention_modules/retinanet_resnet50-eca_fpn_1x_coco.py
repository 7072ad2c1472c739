_base_ = ['./recipes/retinanet_fpn_1x_coco.py', './members/eca.py']

checkpoint = 'hybrid_mm://resnet50-eca_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
