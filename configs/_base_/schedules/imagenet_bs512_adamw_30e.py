# AdamW for 30 more epochs of a network pre-trained on ImageNet-22k: linear decay from 5e-5 to 5e-6,
# no warm-up, gradients clipped at norm 5; no weight decay for vectors (DiNAT-Large).
_base_ = './imagenet_bs1024_adamw_300e_nat.py'

train_cfg = dict(max_epochs=30)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=5e-6,
        power=1.0,
        by_epoch=True,
        begin=0,
        end=30,
        convert_to_iter_based=True,
    )
]
optim_wrapper = dict(optimizer=dict(lr=5e-5, weight_decay=1e-4))

# 8 GPUs x 64 images; 1,281,167 / 512 = 2,502 iterations an epoch
auto_scale_lr = dict(base_batch_size=512)
