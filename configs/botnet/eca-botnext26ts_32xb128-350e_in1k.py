_base_ = './botnet26t_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='eca_botnext26ts'))
