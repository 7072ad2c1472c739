_base_ = ['./recipes/8xb128-100e_in1k.py', './members/gc-r4.py']

model = dict(backbone=_base_.backbone)
