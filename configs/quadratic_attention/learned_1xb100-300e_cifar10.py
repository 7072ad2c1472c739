# runs/learned of the official code
_base_ = './quadratic_1xb100-300e_cifar10.py'

model = dict(backbone=dict(mode='learned'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
