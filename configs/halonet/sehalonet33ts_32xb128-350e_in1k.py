_base_ = './halonet26t_32xb128-350e_in1k.py'

model = dict(backbone=dict(arch='sehalonet33ts', final_conv=True), head=dict(in_channels=1280))

_base_.val_dataloader.dataset.pipeline[1].scale = 272
_base_.test_dataloader.dataset.pipeline[1].scale = 272
