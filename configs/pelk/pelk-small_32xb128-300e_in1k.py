_base_ = './pelk-tiny_32xb128-300e_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))
_base_.custom_hooks[1].update(interval=100, prune_rate=0.3)
