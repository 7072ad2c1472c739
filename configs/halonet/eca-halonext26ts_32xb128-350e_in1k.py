_base_ = './halonet26t_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='eca_halonext26ts'))

_base_.val_dataloader.dataset.pipeline[1].scale = 272
_base_.test_dataloader.dataset.pipeline[1].scale = 272
