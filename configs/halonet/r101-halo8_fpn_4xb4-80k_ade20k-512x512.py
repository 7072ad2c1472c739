_base_ = './r50-halo8_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'checkpoints/r101-halo8_in1k.pth'
model = dict(backbone=dict(arch='r101-se-b8', init_cfg=dict(checkpoint=checkpoint)))
