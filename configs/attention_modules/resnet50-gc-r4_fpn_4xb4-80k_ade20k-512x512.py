_base_ = ['./recipes/fpn_4xb4-80k_ade20k-512x512.py', './members/gc-r4.py']

checkpoint = 'hybrid_mm://resnet50-gc-r4_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
