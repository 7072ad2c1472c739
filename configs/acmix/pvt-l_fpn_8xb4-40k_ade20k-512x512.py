_base_ = './pvt-t_fpn_8xb4-40k_ade20k-512x512.py'

checkpoint = 'checkpoints/pvt-l_in1k.pth'
model = dict(backbone=dict(arch='large', init_cfg=dict(checkpoint=checkpoint)))
