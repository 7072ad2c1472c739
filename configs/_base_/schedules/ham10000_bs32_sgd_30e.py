# SGD for HAM10000 from ImageNet weights: 30 epochs, cosine decay from 0.01 to 0.
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=0,
        end=30,
        T_max=30,
        convert_to_iter_based=True,
    )
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001)
)

# 1 GPU x 32 images
auto_scale_lr = dict(enable=False, base_batch_size=32)
