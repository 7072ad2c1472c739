_base_ = './qna-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'checkpoints/qna-tiny-7x7_in1k.pth'
model = dict(backbone=dict(arch='tiny-7x7', init_cfg=dict(checkpoint=checkpoint)))
