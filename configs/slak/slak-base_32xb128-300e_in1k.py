_base_ = './slak-tiny_32xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=1331))
_base_.custom_hooks[1].update(interval=100, prune_rate=0.3)
