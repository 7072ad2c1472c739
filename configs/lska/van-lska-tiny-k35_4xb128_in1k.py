_base_ = './van-lska-tiny_4xb128_in1k.py'

model = dict(backbone=dict(kernel_size=35))
