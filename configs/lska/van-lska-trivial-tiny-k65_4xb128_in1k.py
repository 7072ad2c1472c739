_base_ = './van-lska-tiny_4xb128_in1k.py'

model = dict(backbone=dict(attention='lska_trivial', kernel_size=65))
