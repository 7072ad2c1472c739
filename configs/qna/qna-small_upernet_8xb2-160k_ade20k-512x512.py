_base_ = './qna-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'checkpoints/qna-small_in1k.pth'
model = dict(backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint=checkpoint)))
