_base_ = './cvt-13_8xb64-20k_in1k-384.py'

checkpoint = 'checkpoints/cvt-21_in22k.pth'
model = dict(backbone=dict(arch='21', init_cfg=dict(checkpoint=checkpoint)))
