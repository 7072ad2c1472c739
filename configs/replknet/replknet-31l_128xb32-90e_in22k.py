_base_ = './replknet-31b_128xb32-90e_in22k.py'

model = dict(backbone=dict(arch='31l'), head=dict(in_channels=1536))
