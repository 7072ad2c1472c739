# As in the paper: the recipe of the host network.
_base_ = './pvt-t_8xb128-300e_in1k.py'

model = dict(backbone=dict(acmix=True))
