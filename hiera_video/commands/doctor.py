"""Look for what is wrong with an installation or a machine: hiera-video doctor

Exit status 0: nothing; 1: there are troubles, each printed with a way out.
"""

from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.doctor.machine import TROUBLE
from hiera_video.doctor.report import findings, import_problem


def main(argv: Sequence[str] | None = None) -> int:
    """Run every check and print what it finds; return 1 if there are troubles."""
    if problem := import_problem():
        print(problem)
        return 1
    parser = command_parser(
        "Look for what is wrong with this installation or machine, and say what to do about it."
    )
    parser.add_argument("--output", default="output", help="where runs write (OUTPUT_DIR)")
    arguments = parser.parse_args(argv)
    troubles = 0
    for finding in findings(arguments.output):
        print(finding, flush=True)
        troubles += finding.status == TROUBLE
    print(f"{troubles or 'no'} trouble{'s' * (troubles > 1)} found")
    return 1 if troubles else 0
