_base_ = './swin-t-acmix_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'checkpoints/swin-s-acmix_in1k.pth'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
