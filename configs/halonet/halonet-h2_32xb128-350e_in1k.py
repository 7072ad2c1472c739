_base_ = './halonet-h0_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='h2'), head=dict(in_channels=640))
