_base_ = './pelk-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(center_size=3))
