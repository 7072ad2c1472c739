_base_ = './lesa-r50-axial_4xb32-95e_in1k.py'

model = dict(backbone=dict(arch='wrn50'))
