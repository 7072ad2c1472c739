_base_ = './mvitv2-tiny_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.3))
