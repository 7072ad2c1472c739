_base_ = './qna-tiny_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=768))
_base_.param_scheduler[0].end = 20
_base_.param_scheduler[1].begin = 20
