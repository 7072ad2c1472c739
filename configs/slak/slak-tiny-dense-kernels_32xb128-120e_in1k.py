_base_ = './slak-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(decomposed=False))
