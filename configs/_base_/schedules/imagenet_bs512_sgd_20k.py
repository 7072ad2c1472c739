# SGD for fine-tuning on ImageNet-1k as ViT does it: 20,000 iterations of 512 images, warm-up in
# 500, cosine decay to 0, no weight decay, gradients clipped at norm 1. The rate is CvT's.
train_cfg = dict(by_epoch=False, max_iters=20000, val_interval=2000)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=500, end=20000),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.003, momentum=0.9, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)

# 8 GPUs x 64 images; 20,000 x 512 / 1,281,167 = 8.0 epochs
auto_scale_lr = dict(enable=False, base_batch_size=512)
