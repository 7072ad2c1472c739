# With mixed precision, unlike DiNAT-Large.
_base_ = './dinat-large_upernet_8xb2-160k_ade20k-640x640.py'

checkpoint = 'hybrid_mm://dinat-s-large_in22k'
model = dict(backbone=dict(type='hybrid_mm.DiNATs', init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
