_base_ = ['./recipes/8xb128-100e_in1k.py', './members/gc-r16.py']

model = dict(backbone=_base_.backbone)
