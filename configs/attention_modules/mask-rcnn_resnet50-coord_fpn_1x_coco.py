_base_ = ['./recipes/mask-rcnn_fpn_1x_coco.py', './members/coord.py']

checkpoint = 'hybrid_mm://resnet50-coord_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
