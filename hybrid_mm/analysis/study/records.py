"""Results of the study: one JSON file, which is replaced after every training."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hybrid_mm.errors import UserError
from hybrid_mm.run.outputs import replacing

__all__ = ['Record', 'read', 'write']


@dataclass(frozen=True)
class Record:
    """What was measured of one training.

    Attributes:
        task: 'segmentation' or 'detection'.
        system: Name of the system.
        seed: Seed of the training.
        digest: Of its config; a record whose config has changed since is stale.
        last: Metric of the last evaluation: mIoU or box mAP in per cent.
        best: The best of the evaluations.
        curve: Pairs of an iteration and the metric after it.
        loss: Pairs of an iteration and the mean loss of the iterations since the pair before.
        params: Parameters of the backbone.
        macs: Multiply-adds of the backbone for one image of the task's padded size.
        whole_params: Parameters of the whole model.
        whole_macs: Multiply-adds of the whole model.
        seconds: CPU seconds of one training iteration, the median: forward, backward, optimizer.
        evaluation_seconds: CPU seconds of the last evaluation of the whole validation set.
        total_seconds: CPU seconds of all of it, loading of data and evaluations included.
        step_bytes: Peak of torch's allocations in forward and backward of one batch, beyond
            parameters and inputs; gradients are included.
        resident_bytes: Peak resident memory of the process.
        torch: Version of torch.
        hybrid_mm: Version of this package.
    """

    task: str
    system: str
    seed: int
    digest: str
    last: float
    best: float
    curve: list[list[float]]
    loss: list[list[float]]
    params: int
    macs: int
    whole_params: int
    whole_macs: int
    seconds: float
    evaluation_seconds: float
    total_seconds: float
    step_bytes: int
    resident_bytes: int
    torch: str
    hybrid_mm: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, system, seed."""
        return self.task, self.system, self.seed


def read(path: Path) -> dict[tuple[str, str, int], Record]:
    """Records by task, system and seed; none if there is no such file.

    Args:
        path: JSON file.

    Raises:
        UserError: The file is no file of records.
    """
    if not path.is_file():
        return {}
    names = {field.name for field in fields(Record)}
    try:
        rows = json.loads(path.read_text())['records']
        records = [Record(**row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} has no results of the study ({error}): a JSON file with "records", each with '
            f'{", ".join(sorted(names))}'
        ) from error
    return {record.key: record for record in records}


def write(path: Path, records: dict[tuple[str, str, int], Record]) -> None:
    """Replace the file; each record is a line.

    Args:
        path: JSON file.
        records: All records by task, system and seed.
    """
    rows = ',\n'.join(json.dumps(asdict(records[key])) for key in sorted(records))
    with replacing(path) as file:
        file.write_text(f'{{"records": [\n{rows}\n]}}\n')
