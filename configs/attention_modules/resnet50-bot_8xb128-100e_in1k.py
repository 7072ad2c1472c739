_base_ = ['./recipes/8xb128-100e_in1k.py', './members/bot.py']

model = dict(backbone=_base_.backbone)
