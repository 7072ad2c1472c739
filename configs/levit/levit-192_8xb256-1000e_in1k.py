_base_ = './levit-128s_8xb256-1000e_in1k.py'

model = dict(backbone=dict(arch='192'))
