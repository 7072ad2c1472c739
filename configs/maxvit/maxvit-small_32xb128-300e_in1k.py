_base_ = './maxvit-tiny_32xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3 * 10 / 11),
    head=dict(in_channels=768, hidden_dim=768),
)
