# Our recipe.
_base_ = './mvitv2-tiny_upernet_8xb2-160k_ade20k-512x512.py'

checkpoint = 'checkpoints/mvitv2-small_in1k.pth'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)))
