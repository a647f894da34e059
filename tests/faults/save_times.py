"""Measure how long saving blocks training: torchrun --nproc-per-node 2 THIS FOLDER

Saves Hiera-B's weights and AdamW's moments from CPU processes in three ways, in turn, for five
rounds: as a distributed checkpoint asynchronously (training would continue), as a distributed
checkpoint synchronously, and gathered into one file.
"""

import argparse
import statistics
import time
from datetime import timedelta

import torch
from torch.distributed import destroy_process_group, init_process_group

from hiera_video.checkpoints.run_folder import Position
from hiera_video.config import load_config
from hiera_video.engine.checkpoint import run_state, write_checkpoint
from hiera_video.engine.checkpoint_distributed import ShardedSaves
from hiera_video.engine.parallel import data_parallel
from hiera_video.engine.parallel.fsdp import whole
from hiera_video.models.build import build_model
from hiera_video.solver.build import build_optimizer
from hiera_video.utils import dist

ROUNDS = 5
WORDS = ["DATA.PATH_TO_DATA_DIR", "none", "NUM_GPUS", "0", "DIST.STRATEGY", "fsdp"]


def main():
    parser = argparse.ArgumentParser(description="How long training waits for a checkpoint.")
    parser.add_argument("folder", metavar="FOLDER", help="where to write; 1.2 GB")
    folder = parser.parse_args().folder
    init_process_group("gloo", timeout=timedelta(seconds=300))
    cfg = load_config("configs/Kinetics/HIERA_B.yaml", WORDS)
    model = build_model(cfg)
    data_parallel.wrap(cfg, model, torch.device("cpu"))
    optimizer = build_optimizer(cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    taken_sec = {"asynchronous": [], "written after": [], "waited for": [], "one file": []}

    def state(epoch):
        return run_state(
            epoch=epoch, model=model, optimizer=optimizer, config_yaml="", class_names=None
        )

    def waiting(kind, save):
        dist.by_main(lambda: None)
        start = time.monotonic()
        save()
        taken_sec[kind].append(time.monotonic() - start)

    with ShardedSaves(folder, keep=1, timeout_sec=300, warn=print) as saves:

        def sharded(position):
            saves.save(position, state(position.epoch))

        def sharded_and_wait(position):
            sharded(position)
            saves.wait()

        def one_file():
            content = whole(state(1))
            dist.by_main(lambda: write_checkpoint(f"{folder}/whole.pyth", content))

        for epoch in range(1, ROUNDS + 1):
            waiting("asynchronous", lambda: sharded(Position(epoch)))  # noqa: B023
            waiting("written after", saves.wait)
            waiting("waited for", lambda: sharded_and_wait(Position(epoch, 1)))  # noqa: B023
            waiting("one file", one_file)
    if dist.is_main():
        for kind, seconds in taken_sec.items():
            rounds = ", ".join(f"{sec:.2f}" for sec in seconds)
            print(f"{kind}: median {statistics.median(seconds):.2f} s ({rounds})")
    destroy_process_group()


if __name__ == "__main__":
    main()
