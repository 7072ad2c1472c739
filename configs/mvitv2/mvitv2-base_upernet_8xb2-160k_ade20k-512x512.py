# Our recipe.
_base_ = './mvitv2-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://mvitv2-base_in1k'
model = dict(backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)))
