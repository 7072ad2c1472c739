# AdamW for ImageNet-1k with the recipe of Swin: 20 epochs of warm-up from 1e-6, cosine to 1e-5 at
# epoch 300, both by iteration, gradients clipped at norm 5; no weight decay for biases, norms,
# other vectors and scalars, and tables of relative positions. timm's cosine begins under the
# warm-up.
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        end=300,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys=dict(relative_bias=dict(decay_mult=0.0)),
    ),
)

# 8 GPUs x 128 images; 1,281,167 / 1,024 = 1,251 iterations an epoch
auto_scale_lr = dict(enable=False, base_batch_size=1024)
