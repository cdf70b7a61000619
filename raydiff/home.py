"""Places for what libraries keep below the home folder, where that cannot be written: a container under any user id.

Nothing here is done where the home folder can be written.
"""

from __future__ import annotations

import atexit
import getpass
import os
import secrets
import shutil
import stat
import tempfile

# Where matplotlib, torch, its compilers and the hubs keep files, by the variable that says where; below home otherwise.
CACHES = {
    "MPLCONFIGDIR": ".config/matplotlib",
    "TORCH_HOME": ".cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": ".cache/torchinductor",
    "TRITON_CACHE_DIR": ".triton/cache",
    "HF_HOME": ".cache/huggingface",
    "XDG_CACHE_HOME": ".cache",
}
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def is_writable() -> bool:
    """Whether files can be made in the home folder."""
    return os.access(os.path.expanduser("~"), os.W_OK | os.X_OK)


def use_private_caches() -> None:
    """Name a private folder for each cache that the home folder does not hold already and cannot take.

    Must come before the libraries are imported. What the user has set stays.
    """
    if is_writable():
        return
    home = os.path.expanduser("~")
    lacking = {name: below for name, below in CACHES.items() if not os.path.isdir(os.path.join(home, below))}
    if not lacking.keys() <= os.environ.keys():
        folder = _private_folder()
        for name, below in lacking.items():
            os.environ.setdefault(name, os.path.join(folder, below))
    try:
        getpass.getuser()
    except (KeyError, OSError):  # torch asks for the name of a user who has none
        os.environ["USER"] = str(os.getuid())


def use_private_token() -> None:
    """A token for a Ray that this process starts, in a folder that goes when the process ends; Ray itself would write
    it below the home folder. A token that is given, or that is there, stays.
    """
    given = any(os.environ.get(name) for name in TOKEN_VARIABLES)
    if given or is_writable() or os.path.exists(os.path.expanduser("~/.ray/auth_token")):
        return
    folder = tempfile.mkdtemp(prefix="raydiff-token-")  # 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    token = os.path.join(folder, "token")
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = token


def _private_folder() -> str:
    """One of this user's own, the same for all its processes, which nobody else can read or have made."""
    folder = os.path.join(tempfile.gettempdir(), f"raydiff-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        found = os.lstat(folder)
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        if not ours:
            folder = tempfile.mkdtemp(prefix="raydiff-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
