_base_ = './dinat-mini_8xb128_in1k.py'

model = dict(backbone=dict(arch='tiny', drop_path_rate=0.2))
