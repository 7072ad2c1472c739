_base_ = './replknet-31b-in22k_32xb16-30e_in1k-384.py'

checkpoint = 'hybrid_mm://replknet-31l_in22k'
model = dict(
    backbone=dict(arch='31l', init_cfg=dict(checkpoint=checkpoint)), head=dict(in_channels=1536)
)
