# runs/many-heads of the official code
_base_ = './quadratic_1xb100-300e_cifar10.py'

model = dict(backbone=dict(heads=16))
