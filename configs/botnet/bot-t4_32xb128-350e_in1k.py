_base_ = './bot-t3_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='s1-110', drop_path_rate=0.2))
