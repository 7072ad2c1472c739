_base_ = './bot50-s1_8xb32-100e_in1k.py'

model = dict(backbone=dict(arch='bot101'))
