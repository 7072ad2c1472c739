_base_ = './nat-mini_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://nat-tiny_in1k'
model = dict(backbone=dict(arch='tiny', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)))
