# AdamW for ImageNet-1k: 5 epochs of warm-up from 1e-6, cosine to 1e-6 at epoch 300, 10 epochs
# there (timm's cool-down); no weight decay for biases, norms and layer scales. A LinearLR is
# through one step before its end; timm's cosine begins under the warm-up.
train_cfg = dict(by_epoch=True, max_epochs=310, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=0, end=300),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)

# 8 GPUs x 128 images; 1,281,167 / 1,024 = 1,251 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=1024)
