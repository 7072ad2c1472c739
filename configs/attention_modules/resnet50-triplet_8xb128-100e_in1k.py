_base_ = ['./recipes/8xb128-100e_in1k.py', './members/triplet.py']

model = dict(backbone=_base_.backbone)
