_base_ = './dinat-large_8xb64-30e_in1k.py'

checkpoint = 'checkpoints/dinat-s-large_in22k.pth'
model = dict(backbone=dict(type='hybrid_mm.DiNATs', init_cfg=dict(checkpoint=checkpoint)))
