_base_ = './cvt-13_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'checkpoints/cvt-21_in1k.pth'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
