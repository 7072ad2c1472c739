_base_ = './qna-tiny_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='tiny-7x7'))
