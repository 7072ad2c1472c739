# AdamW for 30 more epochs of a QnA-ViT at a constant rate, with hardly any weight decay; none on
# tables of relative positions, queries and their weights by position.
_base_ = './imagenet_bs1024_adamw_300e_qna.py'

train_cfg = dict(max_epochs=30)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True, begin=0, end=30)]
optim_wrapper = dict(
    optimizer=dict(lr=4e-5, weight_decay=1e-8),
    paramwise_cfg=dict(custom_keys={'attn.query': dict(decay_mult=0.0)}),
)
