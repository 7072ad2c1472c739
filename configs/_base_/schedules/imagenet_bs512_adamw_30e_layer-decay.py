# AdamW for 30 epochs of fine-tuning with layer-wise decay of the learning rate: one epoch of
# warm-up, cosine from 4e-4 to 1e-6, in each layer to the same part of its own rate; no weight decay
# for biases, norms and other vectors; moving average of the weights.
_base_ = './imagenet_bs4096_adamw_300e.py'

train_cfg = dict(max_epochs=30)
_base_.param_scheduler[0].update(start_factor=1e-6, end=1)  # from (almost) 0
_base_.param_scheduler[1].update(begin=1, end=30, eta_min=None, eta_min_ratio=2.5e-3)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=1e-8),
    constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.7, flat_decay_mult=0.0),
)

# 16 GPUs x 32 images; 1,281,167 / 512 = 2,502 iterations an epoch
auto_scale_lr = dict(base_batch_size=512)
