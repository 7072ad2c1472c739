_base_ = './levit-128s_8xb256-1000e_in1k.py'

model = dict(backbone=dict(arch='256'), head=dict(in_channels=512))
