# The paper states 160k iterations only: the other values are those of SLaK's file of this size.
_base_ = './pelk-tiny_upernet_4xb4-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://pelk-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.3, init_cfg=dict(checkpoint=checkpoint)))
