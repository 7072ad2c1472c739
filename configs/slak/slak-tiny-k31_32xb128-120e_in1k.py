_base_ = './slak-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_sizes=(31, 29, 27, 13)))
