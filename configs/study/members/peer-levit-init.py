# MMPretrain's LeViT with the initial values of the authors' code, which ours has as well.
_base_ = 'peer-levit.py'
backbone = dict(zero_residuals=True)
