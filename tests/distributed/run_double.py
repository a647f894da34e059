"""tools/run_net.py with a model in float64, so that a test can tell a fault from rounding.

Two correct ways to sum gradients differ in their last bits. In float32, training steps grow that
difference to 1e-6 on one processor and to 4e-6 on another. In float64 it starts nine digits lower.
"""

import runpy

from hiera_video.engine import train_run
from hiera_video.utils import cli

build = train_run.build_model


def to_double(module, arguments):
    return (arguments[0].double(), *arguments[1:])


def build_double(cfg):
    model = build(cfg).double()
    model.register_forward_pre_hook(to_double)
    return model


train_run.build_model = build_double

if __name__ == "__main__":
    cli.run(runpy.run_path("tools/run_net.py")["main"])
