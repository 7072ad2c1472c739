_base_ = ['./recipes/mask-rcnn_fpn_1x_coco.py', './members/gc-r4.py']

checkpoint = 'hybrid_mm://resnet50-gc-r4_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
