_base_ = './elsa-swin-t_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://elsa-swin-s_in1k'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
