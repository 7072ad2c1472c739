_base_ = './coatnet-0_32xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='1', drop_path_rate=0.3), head=dict(in_channels=768, hidden_dim=768)
)
