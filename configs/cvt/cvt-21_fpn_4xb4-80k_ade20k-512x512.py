_base_ = './cvt-13_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'checkpoints/cvt-21_in1k.pth'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
