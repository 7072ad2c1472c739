_base_ = './van-lska-tiny_4xb128_in1k.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=512))
