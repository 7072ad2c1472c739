_base_ = './coatnet-0_32xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='3', drop_path_rate=0.7), head=dict(in_channels=1536, hidden_dim=1536)
)
