# Our recipe; the paper trains this network at 384 pixels by a recipe that it does not give.
_base_ = './pelk-base_32xb128-300e_in1k.py'

model = dict(backbone=dict(kernel_sizes=(101, 69, 67, 13), center_size=7))
