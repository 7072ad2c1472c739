_base_ = './slak-tiny_upernet_4xb4-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://slak-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)))
