_base_ = './coatnet-0_32xb16-30e_in1k-384.py'

checkpoint = 'hybrid_mm://coatnet-2_in1k'
model = dict(
    backbone=dict(arch='2', drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=1024, hidden_dim=1024),
)
