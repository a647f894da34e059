"""The command line as PySlowFast's users type it."""

import sys
from collections.abc import Sequence

from hiera_video.utils.errors import UserError

# What torchrun says to the processes it starts.
_OF_LAUNCHER = ("--init_method", "--shard_id", "--num_shards")


def command_words(argv: Sequence[str] | None) -> list[str]:
    """Return the words of a command line (None: this process's) without PySlowFast's --opts.

    Raises:
        UserError: they say how processes meet, which torchrun does here.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for option in (word.split("=")[0] for word in words):
        if option in _OF_LAUNCHER:
            raise UserError(
                f"{option} is an option of PySlowFast; here torchrun says how processes meet. Try "
                "torchrun --nnodes 2 --nproc-per-node 8 tools/run_net.py --cfg ..."
            )
    return [word for word in words if word != "--opts"]
