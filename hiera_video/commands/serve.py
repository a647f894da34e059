"""Serve a web page for trying a model: drop a video, watch it with its classes.

hiera-video serve --checkpoint output/checkpoints/checkpoint_epoch_00075.pyth
hiera-video serve --checkpoint mae_k400_ft_k400 --model hiera_base_16x224 --port 8080
curl -F video=@x.mp4 http://127.0.0.1:8000/predict

Each request is logged as a line on standard error. SIGTERM lets running requests finish; Ctrl-C
does not.

Exit status: 0 after Ctrl-C or SIGTERM; 1 if the server could not start; 2 for a wrong command line.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress

from hiera_video.commands.options import command_parser
from hiera_video.config import load_config
from hiera_video.inference.predictor import Predictor
from hiera_video.serve.server import Service, Settings, check_settings, is_local


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    usual = Settings()
    parser = command_parser("Serve a web page for trying a trained model.")
    add = parser.add_argument
    add(
        "--checkpoint",
        help="of a run, or an exported folder; with --model a published name, a file or a URL",
    )
    add("--model", help="a model function such as hiera_base_16x224")
    add("--cfg", help="YAML file, for weights that come without their config")
    add(
        "--class-names",
        metavar="FILE",
        help="one name per line; or kinetics400 or ssv2 (default: the checkpoint's)",
    )
    add("--device", help="cpu or cuda:0 (default: cuda if there is one)")
    add("--host", default=usual.host, help="address to listen at (%(default)s: this machine only)")
    add("--port", type=int, default=usual.port, help="0: any free port (%(default)s)")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name that clients may use for this server; may be repeated",
    )
    add(
        "--max-upload-mb",
        type=float,
        default=usual.max_upload_mb,
        metavar="MB",
        help="(%(default)g)",
    )
    add(
        "--max-waiting",
        type=int,
        default=usual.max_waiting,
        metavar="N",
        help="uploads that may wait in the queue (%(default)s)",
    )
    add(
        "--max-windows",
        type=int,
        default=usual.max_windows,
        metavar="N",
        help="windows per video; in a longer video they are wider apart (%(default)s)",
    )
    add(
        "--decode-timeout-sec",
        type=float,
        default=usual.deadline_sec,
        metavar="SECONDS",
        help="per video (%(default)g)",
    )
    add(
        "--grace-sec",
        type=float,
        default=usual.grace_sec,
        metavar="SECONDS",
        help="for running requests after SIGTERM (%(default)g)",
    )
    add("--no-access-log", action="store_true", help="do not print a line for each request")
    add(
        "--every",
        type=float,
        metavar="SECONDS",
        help="from one window to the next (default: half a clip)",
    )
    add("--window", type=float, metavar="SECONDS", help="a window's length, for uniform sampling")
    return parser.parse_args(argv)


def _print_line(line: str) -> None:
    with suppress(OSError, ValueError):  # a request does not fail because of its log line
        print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    arguments = parse_args(argv)
    settings = Settings(
        host=arguments.host,
        port=arguments.port,
        max_upload_mb=arguments.max_upload_mb,
        max_waiting=arguments.max_waiting,
        max_windows=arguments.max_windows,
        deadline_sec=arguments.decode_timeout_sec,
        every_sec=arguments.every,
        window_sec=arguments.window,
        allow_hosts=arguments.allow_host,
        grace_sec=arguments.grace_sec,
        access_log=None if arguments.no_access_log else _print_line,
    )
    check_settings(settings)  # before the model is loaded
    predictor = Predictor(
        arguments.checkpoint,
        model=arguments.model,
        device=arguments.device,
        class_names=arguments.class_names,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
    )
    with Service(predictor, settings) as service:
        if not is_local(settings.host):
            print(
                f"warning: --host {settings.host} lets everyone who reaches this machine upload "
                "videos; there is no password and no encryption.",
                file=sys.stderr,
            )
        print(f"{service.url}  (Ctrl-C ends it)", flush=True)
        service.run()
    print("stopped")
