_base_ = ['./recipes/upernet_4xb4-80k_ade20k-512x512.py', './members/resnet50.py']

checkpoint = 'hybrid_mm://resnet50_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
