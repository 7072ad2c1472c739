# runs/quadratic of the official code
_base_ = [
    '../_base_/models/quadratic_cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10_bs100_sgd_300e.py',
    '../_base_/default_runtime_cls.py',
]
