_base_ = './qna-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://qna-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint=checkpoint)))
