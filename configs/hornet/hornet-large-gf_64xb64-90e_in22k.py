_base_ = './hornet-large_64xb64-90e_in22k.py'

model = dict(backbone=dict(arch='large-gf'))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
