# The recipe of PVT: ACmix's code has none.
_base_ = './pvt-t_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='small', acmix=True))
