# As schedule_bs64_lsj-100e_adamw.py in half of the time: 50 epochs, 92,187 iterations.
_base_ = './schedule_bs64_lsj-100e_adamw.py'

train_cfg = dict(max_iters=92187, dynamic_intervals=[(90001, 92187)])
_base_.param_scheduler[1].update(end=92187, milestones=[81944, 88773])
