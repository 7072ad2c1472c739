# As imagenet_1k_deit.py with QnA-ViT's colour jitter after RandAugment: strength 0.3 of SimCLR's,
# for 80% of the images, and grey for 20%. The authors' RandAugment is another implementation.
_base_ = './imagenet_1k_deit.py'

jitter = dict(type='ColorJitter', brightness=0.24, contrast=0.24, saturation=0.24, hue=0.06)
_base_.train_dataloader.dataset.pipeline[4:4] = [
    dict(type='RandomApply', transforms=[jitter], prob=0.8),
    dict(
        type='RandomGrayscale', prob=0.2, keep_channels=True, channel_weights=(0.114, 0.587, 0.299)
    ),
]
