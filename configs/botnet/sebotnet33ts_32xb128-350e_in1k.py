_base_ = './botnet26t_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='sebotnet33ts', final_conv=True), head=dict(in_channels=1280))
