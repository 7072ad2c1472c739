_base_ = ['./recipes/8xb128-100e_in1k.py', './members/cbam.py']

model = dict(backbone=_base_.backbone)
