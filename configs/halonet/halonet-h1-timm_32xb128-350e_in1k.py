_base_ = './halonet26t_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='halonet_h1'), head=dict(in_channels=512))
