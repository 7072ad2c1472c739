# AdamW for 30 epochs of fine-tuning as HorNet-L is: rates that decay by layers, no warm-up, cosine
# to a fiftieth of every rate, gradients clipped at norm 1, moving average of the weights; no weight
# decay for biases, norms and other vectors.
_base_ = './imagenet_bs4096_adamw_300e.py'

train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.02,  # 1e-6 / 5e-5
        by_epoch=True,
        begin=0,
        end=30,
        convert_to_iter_based=True,
    )
]
optim_wrapper = dict(
    optimizer=dict(lr=5e-5, weight_decay=1e-8),
    clip_grad=dict(_delete_=True, max_norm=1.0),
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.7, flat_decay_mult=0.0),
)

# 32 GPUs x 16 images; 1,281,167 / 512 = 2,502 iterations an epoch
auto_scale_lr = dict(base_batch_size=512)
