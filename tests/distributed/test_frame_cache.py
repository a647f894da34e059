"""The processes of a machine keep decoded videos in one memory."""

import simplejson

SHARE = """
import json, os, sys
from datetime import timedelta
import torch.distributed
from hiera_video.data import frame_cache
from hiera_video.utils import dist

torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
if sys.argv[2] == "refused" and dist.rank():
    def refuse(*_): raise PermissionError(13, "Permission denied")
    frame_cache.os.open = refuse
cache = frame_cache.open_frame_cache(4, 10**6)
if dist.rank() == 0:
    cache.open(2, sys.argv[1]).close()
torch.distributed.barrier()
told = {"rank": dist.rank(), "holds": cache.holds(2), "bytes": cache.num_bytes}
if cache.holds(2):
    with cache.open(2, "gone.mp4") as reader:
        told["sum"] = int(reader.frames_at(range(reader.num_frames)).sum())
torch.distributed.barrier()
sys.stdout.write(json.dumps(told) + "\\n")
sys.stdout.flush()
torch.distributed.destroy_process_group()
"""


def told_by(ranks, script, *words):
    ended = ranks(2, script(SHARE), *words)
    assert ended.status == 0, ended.err
    return sorted(map(simplejson.loads, ended.out.splitlines()), key=lambda told: told["rank"])


def test_one_decodes_and_the_other_reads(ranks, script, make_video, index_frames, tmp_path):
    path = make_video(tmp_path / "a.mp4", index_frames(8))
    first, second = told_by(ranks, script, path, "allowed")
    assert (first["holds"], second["holds"]) == (True, True)
    assert first["sum"] == second["sum"] > 0
    assert first["bytes"] == second["bytes"] == 10**6

    # Where one may not open the memory of the other, each has its part of the bytes.
    first, second = told_by(ranks, script, path, "refused")
    assert (first["holds"], second["holds"]) == (True, False)
    assert first["bytes"] == second["bytes"] == 5 * 10**5
