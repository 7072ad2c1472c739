# SGD for CIFAR-10: 300 epochs, the first 5 % linear warm-up, cosine decay to 0 by iteration; no
# weight decay for centres and spreads of quadratic attention.
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=15,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=15,
        end=300,
        T_max=285,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(
        custom_keys={'.centers': dict(decay_mult=0.0), '.spreads': dict(decay_mult=0.0)}
    ),
)

# 1 GPU x 100 images: 50,000 / 100 = 500 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=100)
