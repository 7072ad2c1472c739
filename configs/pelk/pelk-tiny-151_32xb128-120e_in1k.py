_base_ = './pelk-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_sizes=(151, 89, 87, 13), center_size=7))
