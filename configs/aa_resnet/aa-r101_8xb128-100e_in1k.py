_base_ = './aa-r50_8xb128-100e_in1k.py'

model = dict(backbone=dict(arch='r101'))
