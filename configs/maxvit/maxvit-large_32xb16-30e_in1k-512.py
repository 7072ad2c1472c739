# The drop path rate is that of the training at 224 x 224; only the tiny network has its own file.
_base_ = './maxvit-tiny_32xb16-30e_in1k-512.py'

checkpoint = 'hybrid_mm://maxvit-large_in1k'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.6 * 23 / 24, init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=1024, hidden_dim=1024),
)
