_base_ = ['./recipes/8xb128-100e_in1k.py', './members/quadratic.py']

model = dict(backbone=_base_.backbone)
optim_wrapper = dict(paramwise_cfg=_base_.paramwise_cfg)
