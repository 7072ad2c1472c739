"""Shifted test sets of ImageNet-1K: ImageNet-C, -A, -R and -Sketch.

Sources: "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR
2019), "Natural Adversarial Examples" (CVPR 2021), "The Many Faces of Robustness" (ICCV 2021) and
"Learning Robust Global Representations by Penalizing Local Predictive Power" (NeurIPS 2019).
"""

import os
from typing import Any, ClassVar

from mmengine.dataset import BaseDataset

from hybrid_mm.data.corruptions import CORRUPTIONS, SEVERITIES
from hybrid_mm.registry import DATASETS

SUFFIXES = ('.jpeg', '.jpg', '.png', '.bmp', '.webp')
IMAGENET_CLASSES = 1000

IMAGENET_A = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96, 97,
    99, 105, 107, 108, 110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254, 277,
    283, 287, 291, 295, 298, 301, 306, 307, 308, 309, 310, 311, 313, 314, 315, 317, 319, 323, 324,
    326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386, 397, 400, 401, 402, 404, 407, 411,
    416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472, 483, 486, 488, 492,
    496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569, 572, 573, 575, 579, 589,
    606, 607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677, 682, 684, 687, 701, 704, 719,
    736, 746, 749, 752, 758, 763, 765, 768, 773, 774, 776, 779, 780, 786, 792, 797, 802, 803, 804,
    813, 815, 820, 823, 831, 833, 835, 839, 845, 847, 850, 859, 862, 870, 879, 880, 888, 890, 897,
    900, 907, 913, 924, 932, 933, 934, 937, 943, 945, 947, 951, 954, 956, 957, 959, 971, 972, 980,
    981, 984, 986, 987, 988,
)  # fmt: skip
IMAGENET_R = (
    1, 2, 4, 6, 8, 9, 11, 13, 22, 23, 26, 29, 31, 39, 47, 63, 71, 76, 79, 84, 90, 94, 96, 97, 99,
    100, 105, 107, 113, 122, 125, 130, 132, 144, 145, 147, 148, 150, 151, 155, 160, 161, 162, 163,
    171, 172, 178, 187, 195, 199, 203, 207, 208, 219, 231, 232, 234, 235, 242, 245, 247, 250, 251,
    254, 259, 260, 263, 265, 267, 269, 276, 277, 281, 288, 289, 291, 292, 293, 296, 299, 301, 308,
    309, 310, 311, 314, 315, 319, 323, 327, 330, 334, 335, 337, 338, 340, 341, 344, 347, 353, 355,
    361, 362, 365, 366, 367, 368, 372, 388, 390, 393, 397, 401, 407, 413, 414, 425, 428, 430, 435,
    437, 441, 447, 448, 457, 462, 463, 469, 470, 471, 472, 476, 483, 487, 515, 546, 555, 558, 570,
    579, 583, 587, 593, 594, 596, 609, 613, 617, 621, 629, 637, 657, 658, 701, 717, 724, 763, 768,
    774, 776, 779, 780, 787, 805, 812, 815, 820, 824, 833, 847, 852, 866, 875, 883, 889, 895, 907,
    928, 931, 932, 933, 934, 936, 937, 943, 945, 947, 948, 949, 951, 953, 954, 957, 963, 965, 967,
    980, 981, 983, 988,
)  # fmt: skip


class _Folders(BaseDataset):
    """Images in one folder per class, whose sorted names are the classes of ``labels`` in order.

    ``gt_label`` is the index of the class in ImageNet-1K. The names of the 1000 classes are their
    indices unless ``metainfo`` gives others.

    Args:
        data_root: Folder that holds the folders of the classes.
        **kwargs: See MMEngine's ``BaseDataset``.

    Raises:
        FileNotFoundError: The folder does not exist, or a class has no images.
        ValueError: The number of folders is not that of the classes.
    """

    labels: ClassVar[tuple[int, ...]] = tuple(range(IMAGENET_CLASSES))
    METAINFO = {'classes': tuple(str(i) for i in range(IMAGENET_CLASSES))}

    def __init__(self, data_root: str, **kwargs: Any) -> None:
        kwargs.setdefault('test_mode', True)
        metainfo = dict(kwargs.pop('metainfo', None) or {}, valid_labels=self.labels)
        super().__init__(ann_file='', data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images: one dict each with img_path and gt_label."""
        root, name = self.data_root, type(self).__name__
        if not os.path.isdir(root):
            raise FileNotFoundError(f'{name}: folder {root} does not exist')
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if len(folders) != len(self.labels):
            raise ValueError(
                f'{name}: expected {len(self.labels)} folders, one per class, in {root}, got '
                f'{len(folders)}; classes are assigned by the sorted order of all folders'
            )
        found = []
        for label, folder in zip(self.labels, folders, strict=True):
            path = os.path.join(root, folder)
            files = sorted(f for f in os.listdir(path) if f.lower().endswith(SUFFIXES))
            if not files:
                raise FileNotFoundError(f'{name}: {path} holds no images ({", ".join(SUFFIXES)})')
            found += [dict(img_path=os.path.join(path, f), gt_label=label) for f in files]
        return found


@DATASETS.register_module()
class ImageNetA(_Folders):
    """7,500 natural images of 200 classes on which a ResNet-50 failed; see ``SubsetAccuracy``."""

    labels = IMAGENET_A


@DATASETS.register_module()
class ImageNetR(_Folders):
    """30,000 renditions (art, toys, ...) of 200 classes; see ``SubsetAccuracy``."""

    labels = IMAGENET_R


@DATASETS.register_module()
class ImageNetSketch(_Folders):
    """50,000 sketches of all 1,000 classes."""


@DATASETS.register_module()
class ImageNetC(_Folders):
    """Published corrupted validation images (224 x 224 JPEG) of one corruption and severity.

    Layout: ``<data_root>/<corruption>/<severity>/<class>/*.JPEG``.

    Args:
        data_root: Folder of the corruptions.
        corruption: One of the 19 names.
        severity: Strength of the corruption, 1 to 5.
        **kwargs: See MMEngine's ``BaseDataset``.

    Raises:
        FileNotFoundError: See ``ImageNetA``.
        ValueError: Unknown corruption or severity, or a wrong number of folders.
    """

    def __init__(self, data_root: str, corruption: str, severity: int, **kwargs: Any) -> None:
        if corruption not in CORRUPTIONS or severity not in SEVERITIES:
            raise ValueError(
                f'ImageNetC: expected a severity of 1 to 5 and one of {", ".join(CORRUPTIONS)}, '
                f'got {corruption!r} and {severity!r}'
            )
        super().__init__(os.path.join(data_root, corruption, str(severity)), **kwargs)
