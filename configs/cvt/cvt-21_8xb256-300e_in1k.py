_base_ = './cvt-13_8xb256-300e_in1k.py'

model = dict(backbone=dict(arch='21'))
