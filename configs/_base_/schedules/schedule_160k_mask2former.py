# AdamW of Mask2Former for 160k iterations of ADE20K, polynomial decay of power 0.9 to 0.
_base_ = './schedule_50e_mask2former.py'

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=160000, val_interval=5000)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=160000, by_epoch=False)]
