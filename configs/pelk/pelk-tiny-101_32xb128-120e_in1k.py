_base_ = './pelk-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_sizes=(101, 69, 67, 13), center_size=7))
