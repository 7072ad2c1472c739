_base_ = './halonet26t_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='sehalonet33ts', final_conv=True), head=dict(in_channels=1280))
