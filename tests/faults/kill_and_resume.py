"""Kill a training at random moments, resume it, and compare it with one that was left alone.

python tests/faults/kill_and_resume.py CONFIG [--kills 20] [--work-dir DIR] [--cfg-options ...]

Trains CONFIG once as it is. Then it trains it again, kills the process with SIGKILL at a random
moment of its life (start, iterations, saving, validation) and starts it with `--resume`, until it
is through; and all of that again until there were so many kills. Every time the last checkpoint
must have the same weights, averages and optimizer state, bit by bit, and the log the same losses
and metrics. The exit status is 0 only then. Choose a config that takes a minute and saves often.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TRAIN = Path(__file__).parents[2] / 'tools' / 'train.py'
TIMES = ('time', 'data_time', 'memory')


def start(args: argparse.Namespace, work_dir: Path) -> subprocess.Popen:
    """Start or resume the training in a folder."""
    command = [sys.executable, TRAIN, args.config, '--seed', '0', '--resume']
    command += ['--work-dir', work_dir]
    if args.cfg_options:
        command += ['--cfg-options', *args.cfg_options]
    log = open(work_dir.with_suffix('.log'), 'ab')  # noqa: SIM115
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def result(work_dir: Path) -> tuple[str, dict]:
    """Checksum of the last checkpoint, and the last figures of every step and validation."""
    import torch

    from hybrid_mm.checkpoint_files import checksum

    last = (work_dir / 'last_checkpoint').read_text()
    figures = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line that was being written
                continue
            step = entry.get('step', entry.get('iter'))
            figures['loss' in entry, step] = {k: v for k, v in entry.items() if k not in TIMES}
    checkpoint = torch.load(last, weights_only=False, map_location='cpu')
    for part in ('meta', 'message_hub'):  # with paths, times and names of the run
        del checkpoint[part]
    return checksum(checkpoint), figures


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/kill_and_resume'))
    parser.add_argument('--random-seed', type=int, default=0, help='of the moments')
    parser.add_argument('--cfg-options', nargs='+')
    args = parser.parse_args()
    random.seed(args.random_seed)
    shutil.rmtree(args.work_dir, ignore_errors=True)
    args.work_dir.mkdir(parents=True)

    begin = time.monotonic()
    whole = args.work_dir / 'whole'
    if start(args, whole).wait() != 0:
        print(f'the training fails by itself, see {whole}.log', file=sys.stderr)
        return 2
    duration = time.monotonic() - begin
    expected = result(whole)
    print(f'left alone: {duration:.0f} s, checksum {expected[0]}', flush=True)

    kills = runs = 0
    while kills < args.kills:
        runs += 1
        work_dir = args.work_dir / f'run{runs}'
        while True:
            process = start(args, work_dir)
            delay = random.uniform(0.1, 1.0) * duration if kills < args.kills else None
            try:
                status = process.wait(delay)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                saved = sorted(p.name for p in work_dir.glob('*.pth'))
                print(f'run {runs}: kill {kills} after {delay:.1f} s, {saved}', flush=True)
                continue
            break
        if status != 0:
            print(f'run {runs}: resuming fails, see {work_dir}.log', file=sys.stderr)
            return 1
        found = result(work_dir)
        if found != expected:
            what = 'weights' if found[0] != expected[0] else 'log'
            print(f'run {runs}: another {what} ({found[0]})', file=sys.stderr)
            return 1
        print(f'run {runs}: identical', flush=True)
    print(f'{kills} kills in {runs} runs: all identical')
    return 0


if __name__ == '__main__':
    sys.exit(main())
