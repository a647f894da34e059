import simplejson

from hiera_video.utils import dist

TALK = """
import json, sys
from datetime import timedelta
import torch.distributed
from hiera_video.utils import dist

assert dist.rank() == 0 and dist.world_size() == 1 and dist.agree(True)
torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
rank = dist.rank()
heard = {
    "place": [rank, dist.world_size(), dist.local_rank(), dist.local_world_size()],
    "machines": dist.num_machines(),
    "main": dist.is_main(),
    "agreed": [dist.agree(rank == 1), dist.agree(False)],
    "total": dist.total([rank + 1, 0.5]),
    "gathered": dist.gather({"rank": rank}),
    "at_main": dist.gather_to_main("ab"[rank % 2] * rank),
    "from_main": dist.from_main(f"rank {rank}"),
    "restarts": dist.restart_count(),
}
sys.stdout.write(json.dumps(heard) + "\\n")
sys.stdout.flush()
torch.distributed.destroy_process_group()
"""


def test_processes_know_their_place_and_hear_one_another(ranks, script):
    ended = ranks(3, script(TALK))
    assert ended.status == 0, ended.err
    heard = sorted(map(simplejson.loads, ended.out.splitlines()), key=lambda h: h["place"])
    assert [h["place"] for h in heard] == [[r, 3, r, 3] for r in range(3)]
    assert [h["main"] for h in heard] == [True, False, False]
    assert heard[0]["at_main"] == ["", "b", "aa"]
    assert heard[1]["at_main"] is heard[2]["at_main"] is None
    for h in heard:
        assert h["machines"] == 1
        assert h["agreed"] == [True, False]
        assert h["total"] == [6.0, 1.5]
        assert h["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert h["from_main"] == "rank 0"
        assert h["restarts"] == 0


def test_a_single_process_agrees_with_itself():
    assert dist.rank() == dist.local_rank() == dist.restart_count() == 0
    assert dist.world_size() == dist.local_world_size() == dist.num_machines() == 1
    assert dist.is_main()
    assert dist.agree(True)
    assert not dist.agree(False)
    assert dist.total([1, 2.5]) == [1.0, 2.5]
    assert dist.gather("x") == dist.gather_to_main("x") == ["x"]
    assert dist.from_main("x") == "x"
