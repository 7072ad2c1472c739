_base_ = './san10-patchwise_8xb32-100e_in1k.py'

model = dict(backbone=dict(arch='san15'))
