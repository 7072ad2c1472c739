_base_ = './hornet-base_32xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base-gf'))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
_base_.train_dataloader.dataset.pipeline[3].magnitude_level = 15
