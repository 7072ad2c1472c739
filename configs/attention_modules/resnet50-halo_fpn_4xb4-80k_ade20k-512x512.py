_base_ = ['./recipes/fpn_4xb4-80k_ade20k-512x512.py', './members/halo.py']

checkpoint = 'hybrid_mm://resnet50-halo_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
