_base_ = './ea-aa-r50_8xb32-100e_in1k.py'

model = dict(backbone=dict(arch='r101'))
