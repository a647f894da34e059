"""System calls that the kernel refuses, as in containers and on network file systems."""

import platform
import subprocess
import sys

import pytest

# Numbers of the calls: x86-64's and those of all newer machines.
CALLS = {
    "chmod": ([90, 91, 268, 452], [52, 53, 452]),
    "fsync": ([74], [82]),
    "memfd_create": ([319], [279]),
}

# A seccomp filter: `refuse(calls, errno)`, from now on and for all children.
REFUSE = """
import ctypes, errno, os, struct, sys

def refuse(calls, number):
    load, equal, answer = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0)]
    code += [(equal, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    code += [(answer, 0, 0, 0x7FFF0000), (answer, 0, 0, 0x00050000 | number)]
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    class Filter(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_void_p)]
    wanted = Filter(len(code), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(wanted), 0, 0):
        sys.exit(77)
"""


def refused(code, *calls, error):
    """Run `code` in a process in which the kernel refuses the calls; return what it prints."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        pytest.skip("no numbers of system calls for this machine")
    numbers = [n for call in calls for n in CALLS[call][machine == "aarch64"]]
    setting = f"refuse({numbers}, errno.{error})\n"
    done = subprocess.run(
        [sys.executable, "-c", REFUSE + code.replace("# refuse", setting)],
        capture_output=True,
        text=True,
    )
    if done.returncode == 77:
        pytest.skip("no filter of system calls may be set here")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


WRITE = """
from hiera_video.utils import disk
# refuse
try:
    os.chmod(sys.argv[0] or ".", 0o777)
    print("allowed")
except OSError:
    print("refused")
disk.write_atomic("{path}", lambda file: file.write(b"content"))
print(open("{path}").read())
"""


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_file_is_written_where_its_mode_may_not_be_set(tmp_path, error):
    code = WRITE.replace("{path}", str(tmp_path / "x"))
    assert refused(code, "chmod", error=error) == ["refused", "content"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


FLUSH = """
from hiera_video.utils import disk
# refuse
try:
    disk.write_atomic("{path}", lambda file: file.write(b"content"))
    print(open("{path}").read())
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize(
    ("error", "said"), [("EINVAL", "content"), ("ENOSYS", "content"), ("EIO", "EIO")]
)
def test_a_file_system_without_fsync_will_do_and_a_failing_disk_will_not(tmp_path, error, said):
    code = FLUSH.replace("{path}", str(tmp_path / "x"))
    assert refused(code, "fsync", error=error) == [said]


MEMORY = """
import tarfile
from hiera_video.data.workers.memory import Arena
from hiera_video.data.shards.members import HeldFile
# refuse
try:
    os.memfd_create("x")
    print("allowed")
except OSError:
    print("refused")
arena = Arena()
arena.blocks[arena.take(5000)].buffer(5000)[:7] = b"content"
print(bytes(arena.blocks[0].buffer(7)).decode())
held = HeldFile.new("video")
open(held, "w").write("video")
print(open(held).read())
held.close()
"""


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_without_memory_files_temporary_ones_serve(error):
    assert refused(MEMORY, "memfd_create", error=error) == ["refused", "content", "video"]
