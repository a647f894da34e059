"""A table of records is a list of them, in memory that processes share."""

import os

import pytest

from hiera_video.data.records import NO_LABEL, RecordTable, VideoRecord
from hiera_video.data.workers.pool import WorkerPool

RECORDS = [
    VideoRecord("/videos/a b.mp4", 3, 0),
    VideoRecord("", 0, 1),
    VideoRecord("/videos/größe/走る.webm", NO_LABEL, 7),
    VideoRecord("/videos/\udcff.mp4", 399, 2**40),  # a file name that is not UTF-8
]


def test_a_table_is_a_sequence_of_its_records():
    table = RecordTable(RECORDS)
    assert len(table) == 4
    assert list(table) == RECORDS
    assert table[-1] == RECORDS[-1]
    assert table[::2] == RECORDS[::2]
    assert RECORDS[2] in table
    for index in (4, -5):
        with pytest.raises(IndexError):
            table[index]


def test_an_empty_table_is_empty():
    assert list(RecordTable([])) == []


class LastRecord:
    """Looks into a table in another process, and says what private memory it has for it."""

    def __init__(self, table):
        self.table = table

    def __call__(self, task, job):
        before = private_bytes()
        labels = sum(record.label for record in self.table)
        return self.table[task], labels, private_bytes() - before


def private_bytes():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_D"))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="reads Linux's /proc")
def test_processes_share_one_table():
    table = RecordTable(VideoRecord(f"/videos/{i:040}.mp4", i % 7, i) for i in range(100_000))
    assert table.num_bytes == 100_000 * (3 * 8 + len("/videos/.mp4") + 40)
    with WorkerPool(LastRecord(table), num_workers=2, deadline_sec=0) as pool:
        for task_id in range(2):
            pool.submit(task_id, -1)
        for _ in range(2):
            record, labels, grown_bytes = pool.next(timeout_sec=60).value
            assert record == table[99_999]
            assert labels == sum(i % 7 for i in range(100_000))
            assert grown_bytes < table.num_bytes / 4
