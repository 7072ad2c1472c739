# The paper's variant with content; the official code has no script for it.
_base_ = './quadratic_1xb100-300e_cifar10.py'

model = dict(backbone=dict(mode='learned_content'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
