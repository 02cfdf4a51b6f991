"""The allocator a training run starts with: chosen, found, taken over, and without effect on what is learned."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.system import allocator
from tutelage.system.allocator import allocator_here, better_allocator, preload_environment, training_allocator
from tutelage.system.startup import RESTARTED

HERE = better_allocator({})
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="libraries are preloaded on Linux alone")
PROGRAM = "import sys; sys.argv = ['tutelage', *sys.argv[1:]]; from tutelage.__main__ import program; program()"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library in one of the folders that are looked through."""
    library = tmp_path / "libtcmalloc.so.4"
    library.touch()
    monkeypatch.setattr(allocator, "FOLDERS", (str(tmp_path / "elsewhere"), str(tmp_path)))
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
    return library


def test_the_library_is_found_and_the_small_one_first(installed: Path) -> None:
    assert better_allocator({}) == installed
    smaller = installed.with_name("libtcmalloc_minimal.so.4")
    smaller.touch()
    assert better_allocator({}) == smaller


@pytest.mark.parametrize("environment", [
    {"TUTELAGE_ALLOCATOR": "system"},
    {"LD_PRELOAD": "/opt/lib/libjemalloc.so.2"},
])  # fmt: skip
def test_a_choice_that_was_made_stands(installed: Path, environment: dict[str, str]) -> None:
    assert better_allocator(environment) is None


def test_a_library_may_be_named(installed: Path) -> None:
    assert better_allocator({"TUTELAGE_ALLOCATOR": "/opt/lib/libmimalloc.so"}) == Path("/opt/lib/libmimalloc.so")


def test_other_c_libraries_keep_theirs(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert better_allocator({}) is None


def test_what_was_preloaded_stays() -> None:
    made = preload_environment(Path("/lib/one.so"), {"LD_PRELOAD": "/lib/two.so", "A": "1"})
    assert made == {"A": "1", "LD_PRELOAD": "/lib/one.so /lib/two.so"}
    assert better_allocator(preload_environment(Path("/lib/libtcmalloc.so.4"), {})) is None


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", RESTARTED)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@LINUX
def test_the_command_starts_again_with_the_library_and_all_its_arguments() -> None:
    library = ctypes.util.find_library("m")
    assert library is not None
    done = program("train", "missing.toml", TUTELAGE_ALLOCATOR=library, LD_DEBUG="files")
    assert done.returncode == 1
    assert "missing.toml" in done.stderr.split("error:")[-1]
    assert f"file={library}" in done.stderr
    assert done.stderr.count("error:") == 1


@LINUX
def test_a_library_that_is_not_there_does_no_harm() -> None:
    done = program("train", "missing.toml", TUTELAGE_ALLOCATOR="/nowhere/lib.so")
    assert done.returncode == 1
    assert "cannot be preloaded" in done.stderr  # the loader says so itself
    assert "missing.toml" in done.stderr.split("error:")[-1]


@LINUX
@pytest.mark.parametrize(
    "arguments", [("train", "missing.toml", "--dry-run"), ("see", "missing.jsonl"), ("--version",)]
)
def test_other_commands_do_not_start_again(arguments: tuple[str, ...]) -> None:
    done = program(*arguments, TUTELAGE_ALLOCATOR="/nowhere/lib.so")
    assert "cannot be preloaded" not in done.stderr


def test_p4_the_library_of_the_wheel_is_found_behind_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "FOLDERS", (str(tmp_path / "system"), "{packages}/cmeel.prefix/lib"))
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(allocator.sysconfig, "get_path", lambda _: str(tmp_path / "site-packages"))
    wheel = tmp_path / "site-packages" / "cmeel.prefix" / "lib" / "libmimalloc.so.3"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert better_allocator({}) == wheel
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "libtcmalloc_minimal.so.4").touch()
    assert better_allocator({}) == tmp_path / "system" / "libtcmalloc_minimal.so.4"


@pytest.mark.skipif(HERE is None, reason="neither tcmalloc nor mimalloc is installed here")
def test_p4_the_better_allocator_really_gives_out_the_memory() -> None:
    assert HERE is not None
    code = (
        "from tutelage.system.allocator import allocator_here; from tutelage.system.heap import trim_heap; "
        "trim_heap(); print(allocator_here())"
    )
    told = {
        name: subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout.strip()
        for name, environment in (("plain", dict(os.environ)), ("with", preload_environment(HERE, os.environ)))
    }
    assert told["plain"] == allocator_here()
    assert told["with"] in HERE.name
    assert training_allocator() == told["with"]
