_base_ = './nat-iso-small_8xb128_in1k.py'

model = dict(backbone=dict(dilations=[[1, 2]]))
