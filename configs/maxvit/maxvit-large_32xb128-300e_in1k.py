_base_ = './maxvit-tiny_32xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.6 * 23 / 24),
    head=dict(in_channels=1024, hidden_dim=1024),
)
