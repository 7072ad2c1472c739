"""HAM10000: 10,015 dermatoscopic images of pigmented skin lesions in seven classes."""

import csv
import os
import zlib
from typing import Any

from mmengine.dataset import BaseDataset

from hybrid_mm.registry import DATASETS

_COLUMNS = {'lesion_id', 'image_id', 'dx'}


@DATASETS.register_module()
class HAM10000(BaseDataset):
    """Images with the diagnoses of ``HAM10000_metadata.csv``, split by lesion.

    A lesion has several images, so a split by image would leak training lesions into the test
    split. A checksum of the lesion's name assigns all of its images: the split is the same
    everywhere and needs no file. There is no official split.

    Args:
        split: 'train', or 'test' for about ``test_fraction`` of the lesions.
        test_fraction: Between 0 and 1.
        ann_file: Table with the columns lesion_id, image_id and dx, below ``data_root``.
        data_prefix: ``img_path``: folder with all images as ``<image_id>.jpg``.
        **kwargs: See MMEngine's ``BaseDataset``.

    Raises:
        ValueError: An unknown split, or a table without these columns or with another class.
    """

    METAINFO = {'classes': ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')}

    def __init__(
        self,
        split: str = 'train',
        test_fraction: float = 0.2,
        ann_file: str = 'HAM10000_metadata.csv',
        data_prefix: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'test') or not 0 < test_fraction < 1:
            raise ValueError(
                "HAM10000: split must be 'train' or 'test' and test_fraction lie between 0 and 1, "
                f'got {split!r} and {test_fraction}'
            )
        self.split, self.test_fraction = split, test_fraction
        data_prefix = data_prefix or dict(img_path='images')
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the table: one dict per image of the split with img_path and gt_label."""
        classes = self.metainfo['classes']
        with open(self.ann_file, newline='') as file:
            reader = csv.DictReader(file)
            missing = _COLUMNS - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f'{self.ann_file} has no column {", ".join(sorted(missing))}')
            rows = list(reader)
        found = []
        for row in rows:
            if row['dx'] not in classes:
                raise ValueError(
                    f'{self.ann_file}: {row["image_id"]} has the diagnosis {row["dx"]!r}, '
                    f'expected one of {", ".join(classes)}'
                )
            if self._is_test(row['lesion_id']) == (self.split == 'test'):
                path = os.path.join(self.data_prefix['img_path'], f'{row["image_id"]}.jpg')
                found.append(dict(img_path=path, gt_label=classes.index(row['dx'])))
        return found

    def _is_test(self, lesion: str) -> bool:
        return zlib.crc32(lesion.encode()) < self.test_fraction * 2**32
