_base_ = './halonet-h7_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='h7-conv1'))
