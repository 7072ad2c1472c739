_base_ = './coatnet-0_32xb16-30e_in1k-384.py'

checkpoint = 'hybrid_mm://coatnet-3_in1k'
model = dict(
    backbone=dict(arch='3', drop_path_rate=0.7, init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=1536, hidden_dim=1536),
)
