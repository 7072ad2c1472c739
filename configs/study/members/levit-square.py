# LeViT on square images, as its peer.
_base_ = './levit.py'
backbone = dict(
    _delete_=True,
    type='hybrid_mm.StudySquare',
    backbone={{_base_.backbone}},  # with another img_size
    img_size=(256, 320),
)
only_pair = True
