# AdamW for Semantic FPN with the recipe of PVT, PoolFormer, VAN and others: 80k iterations,
# polynomial decay with power 0.9 to 0, no warm-up, weight decay on every parameter.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=80000, val_interval=8000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=80000, by_epoch=False)]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.0001),
)

# 4 GPUs x 4 crops
auto_scale_lr = dict(enable=False, base_batch_size=16)
