"""Queue a run on a Slurm cluster: hiera-video submit --nodes 2 --cfg X.yaml KEY VALUE ...

Needs the extra `slurm` (submitit). Five minutes before the time limit the run saves a checkpoint
and is requeued. The output of its processes is in `--folder`. `--cluster local` runs the job on
this machine.
"""

import argparse
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from hiera_video.commands.options import add_overrides, command_parser
from hiera_video.config import Config, load_config
from hiera_video.engine.launch import launch
from hiera_video.engine.signals import REQUEUE_STATUS
from hiera_video.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, check the config, and queue the run."""
    parser = command_parser("Queue a run on a Slurm cluster.")
    parser.add_argument("--cfg", required=True, help="YAML file, see configs/")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--processes-per-node", type=int, default=8, help="one for each GPU")
    parser.add_argument("--cpus-per-process", type=int, default=12)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--partition", help="Slurm partition (default: the cluster's)")
    parser.add_argument(
        "--folder", default="output/jobs", help="for logs; all machines must see it"
    )
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm")
    add_overrides(parser)
    arguments = parser.parse_args(argv)
    cfg = load_config(arguments.cfg, arguments.overrides)
    job = submit(arguments, cfg)
    print(f"job {job.job_id}: {job.paths.stdout}")
    if arguments.cluster == "local":
        job.wait()
        if job.exception() is not None:
            raise UserError(f"the job failed; {job.paths.stderr} says why.")


def submit(arguments: argparse.Namespace, cfg: Config) -> Any:
    """Queue `run_job` once per process; return submitit's job."""
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is not installed. Try pip install -e '.[slurm]'.") from None
    # SIGUSR1 makes a run save and end. Submitit's own handler would not save first.
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    executor = submitit.AutoExecutor(folder=arguments.folder, cluster=arguments.cluster)
    executor.update_parameters(
        name="hiera_video",
        nodes=arguments.nodes,
        tasks_per_node=arguments.processes_per_node,
        gpus_per_node=arguments.processes_per_node if cfg.NUM_GPUS else 0,
        cpus_per_task=arguments.cpus_per_process,
        timeout_min=round(60 * arguments.hours),
        slurm_partition=arguments.partition,
        slurm_signal_delay_s=300,
    )
    return executor.submit(run_job, cfg)


def run_job(cfg: Config) -> None:
    """Run one process of the job; rank 0 requeues the job if the run saved and ended early."""
    import submitit

    place = submitit.helpers.TorchDistributedEnvironment()
    place.export(set_cuda_visible_devices=False, overwrite=True)
    try:
        launch(cfg)
    except SystemExit as ended:
        if ended.code == REQUEUE_STATUS and place.rank == 0 and "SLURM_JOB_ID" in os.environ:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        raise
