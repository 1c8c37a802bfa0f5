"""Landlock: Linux lets a thread give up access to files and the network, for itself and the threads it starts.

Used for SQL of others (`recsys-data sql`): whatever DuckDB could be talked into, the kernel refuses it. Needs Linux
5.13 with Landlock among its security modules (`/sys/kernel/security/lsm`), no rights and no packages; connections are
refused from Linux 6.7 on. Elsewhere `available` is 0 and nothing is confined. https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION = 1
RULE_PATH_BENEATH = 1
SET_NO_NEW_PRIVS = 38
# Rights by the version that brought them: the first thirteen, and then moving, truncating and ioctl.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL = 1 << 13, 1 << 14, 1 << 15
FIRST_RIGHTS = (1 << 13) - 1
BIND_AND_CONNECT_TCP = 0b11
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64), ("handled_access_net", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


@lru_cache(maxsize=1)
def available() -> int:
    """The version of Landlock that the kernel offers; 0: none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION)))


def confine_thread(readable: Iterable[str | Path], writable: Iterable[str | Path], network: bool = False) -> bool:
    """Leave this thread, and those it starts from now on, nothing but these files and folders, for good.

    Other threads keep what they have. Paths that do not exist are left out.

    Args:
        readable: files, or folders with all that is in them.
        writable: folders in which files may also be made and removed.
        network: whether TCP connections stay possible.

    Returns:
        Whether the thread is confined: False where the kernel has no Landlock.

    Raises:
        OSError: the kernel has it and refuses.
    """
    version = available()
    if not version:
        return False
    handled = FIRST_RIGHTS | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    handled |= IOCTL if version >= 5 else 0
    attributes = _Ruleset(handled, BIND_AND_CONNECT_TCP if version >= 4 and not network else 0)
    # Kernels before the network was handled refuse a longer structure unless the rest is zero.
    size = ctypes.sizeof(attributes) if version >= 4 else ctypes.sizeof(ctypes.c_uint64)
    ruleset = _call(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, READ_FILE | READ_DIR)
        for path in writable:
            _allow(ruleset, path, handled & ~(EXECUTE | IOCTL))
        if _libc().prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise _error()
        _call(RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str | Path, access: int) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rights = access if Path(path).is_dir() else access & OF_FILES
        rule = _PathBeneath(rights, file)
        _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(file)


def _call(*arguments: object) -> int:
    result = _libc().syscall(*arguments)
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"Landlock: {os.strerror(number)}")


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
