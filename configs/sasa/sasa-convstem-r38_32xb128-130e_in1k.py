_base_ = './sasa-convstem-r50_32xb128-130e_in1k.py'

model = dict(backbone=dict(arch='r38'))
