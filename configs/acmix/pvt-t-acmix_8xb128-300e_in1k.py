# The recipe of PVT; that of ACmix's authors is not published.
_base_ = './pvt-t_8xb128-300e_in1k.py'

model = dict(backbone=dict(acmix=True))
