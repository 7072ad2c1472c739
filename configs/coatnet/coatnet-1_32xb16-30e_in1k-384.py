_base_ = './coatnet-0_32xb16-30e_in1k-384.py'

checkpoint = 'hybrid_mm://coatnet-1_in1k'
model = dict(
    backbone=dict(arch='1', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)),
    head=dict(in_channels=768, hidden_dim=768),
)
