_base_ = './coatnet-0_32xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='2', drop_path_rate=0.5), head=dict(in_channels=1024, hidden_dim=1024)
)
