# As classifier.py for networks trained as DeiT and Swin are: inputs with the mean and standard
# deviation of ImageNet.
_base_ = './classifier.py'

model = dict(data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
