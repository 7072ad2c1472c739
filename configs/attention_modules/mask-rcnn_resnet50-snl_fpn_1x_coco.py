_base_ = ['./recipes/mask-rcnn_fpn_1x_coco.py', './members/snl.py']

checkpoint = 'hybrid_mm://resnet50-snl_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
