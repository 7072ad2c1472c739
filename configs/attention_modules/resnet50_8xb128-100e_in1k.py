_base_ = ['./recipes/8xb128-100e_in1k.py', './members/resnet50.py']

model = dict(backbone=_base_.backbone)
