_base_ = './qna-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://qna-tiny-7x7_in1k'
model = dict(backbone=dict(arch='tiny-7x7', init_cfg=dict(checkpoint=checkpoint)))
