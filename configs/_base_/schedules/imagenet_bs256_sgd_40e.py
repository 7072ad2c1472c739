# SGD for 40 more epochs of a trained ResNet on ImageNet-1k: cosine from 0.04 to 0, no warm-up.
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=0,
        end=40,
        T_max=40,
        convert_to_iter_based=True,
    )
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.04, momentum=0.9, weight_decay=0.0001)
)

# 8 GPUs x 32 images; 1,281,167 / 256 = 5,005 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=256)
