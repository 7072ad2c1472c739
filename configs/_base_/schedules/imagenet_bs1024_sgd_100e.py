# SGD for ImageNet-1k: 100 epochs, the first 5 % linear warm-up, cosine decay to 0; rate 0.1 for 256
# images; no weight decay for biases and norms.
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=5,
        end=100,
        T_max=95,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)

# 8 GPUs x 128 images; 1,281,167 / 1,024 = 1,251 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=1024)
