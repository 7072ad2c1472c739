# The drop path rate is that of the training at 224 x 224; only the tiny network has its own file.
_base_ = './maxvit-tiny_32xb16-30e_in1k-512.py'

checkpoint = 'hybrid_mm://maxvit-small_in1k'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.3 * 10 / 11, init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=768, hidden_dim=768),
)
