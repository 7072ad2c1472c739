_base_ = './pvt-t_fpn_8xb4-40k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://pvt-m_in1k'
model = dict(backbone=dict(arch='medium', init_cfg=dict(checkpoint=checkpoint)))
