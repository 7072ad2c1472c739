"""Runs that several tests look at."""

import pytest


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    return {}, tmp_path_factory.mktemp('runs')


@pytest.fixture
def work_dir_of(request, tool, runs):
    """Work dir of two iterations of the config of a task, made once and not to be changed."""
    done, folder = runs

    def get(task):
        if task not in done:
            config = request.getfixturevalue(f'{task}_config')
            status, err = tool('train', config, '--work-dir', folder / task, '--no-validate')
            assert status == 0, err
            done[task] = folder / task
        return done[task]

    return get
