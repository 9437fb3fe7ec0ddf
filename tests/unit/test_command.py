"""Running programs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pgrescue.command import WITHIN, Completed, attend, replace_process, run, spawn
from pgrescue.errors import ToolError
from pgrescue.model import Owner

PYTHON = sys.executable
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/fd is Linux's")


def test_what_a_program_printed_is_kept_apart() -> None:
    args = [PYTHON, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]
    assert run(args) == Completed(tuple(args), 3, "out\n", "err\n")


def test_a_signal_is_a_negative_status() -> None:
    assert run([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"]).status == -9


def test_output_that_is_no_unicode_is_replaced() -> None:
    assert run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_no_shell_reads_the_arguments() -> None:
    assert run(["printf", "%s", "$HOME; `id` *"]).stdout == "$HOME; `id` *"


def test_input_comes_from_the_file_or_is_empty(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("select 1\n")
    assert run(["cat"], stdin=tmp_path / "in").stdout == "select 1\n"
    assert run(["cat"]).stdout == ""


def test_the_working_directory(tmp_path: Path) -> None:
    assert Path(run(["pwd", "-P"], cwd=tmp_path).stdout.strip()) == tmp_path.resolve()


def test_settings_of_libpq_and_the_locale_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGDATA", "PGPASSWORD", "PGOPTIONS", "LANG", "LANGUAGE", "LC_MESSAGES"):
        monkeypatch.setenv(name, "de_DE")
    monkeypatch.setenv("KEPT", "yes")
    seen = dict(line.split("=", 1) for line in run(["env"], env={"PGUSER": "own"}).stdout.splitlines() if "=" in line)
    assert not {"PGDATA", "PGPASSWORD", "PGOPTIONS", "LANG", "LANGUAGE", "LC_MESSAGES"} & set(seen)
    assert (seen["KEPT"], seen["PGUSER"], seen["LC_ALL"]) == ("yes", "own", "C")


@pytest.mark.parametrize("program", ["/nonexistent/program", "/etc/passwd", "no-such-program-anywhere"])
def test_a_program_that_cannot_be_run_is_named(program: str) -> None:
    with pytest.raises(ToolError, match=f"{program} cannot be run"):
        run([program])


def test_a_program_that_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(ToolError, match=r"sleep did not end within 0\.2 s"):
        run(["sleep", "60"], timeout_s=0.2)
    assert time.monotonic() - begun < 30


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@needs_linux
def test_an_interrupted_call_leaves_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"

    def interrupted(*_: object, **__: object) -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([PYTHON, "-c", script, str(tmp_path / "pid")])
    assert not _is_alive(int((tmp_path / "pid").read_text()))


def test_stderr_is_heard_line_by_line_as_it_comes(tmp_path: Path) -> None:
    """A listener that must hear the first line before the program can go on shows that nothing is held back."""
    script = """
import pathlib, sys, time
print("one", file=sys.stderr, flush=True)
print("out" * 100_000)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
sys.stderr.buffer.write(b"t\\xffwo\\nthe last")
"""
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        (tmp_path / "heard").touch()

    done = run([PYTHON, "-c", script, str(tmp_path / "heard")], on_stderr=hear)
    assert heard == ["one", "t\N{REPLACEMENT CHARACTER}wo", "the last"]
    assert done.stderr == "one\nt\N{REPLACEMENT CHARACTER}wo\nthe last"
    assert done.stdout == "out" * 100_000 + "\n"
    assert done.status == 0


@needs_linux
def test_a_listener_that_fails_leaves_no_program() -> None:
    pids: list[int] = []

    def hear(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    script = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run([PYTHON, "-c", script], on_stderr=hear)
    assert not _is_alive(pids[0])


def test_a_program_that_ended_well_is_itself() -> None:
    done = Completed(("true",), 0, "", "")
    assert done.check("it failed") is done


@pytest.mark.parametrize(
    ("stdout", "stderr", "shown"),
    [
        ("out", "first\nlast", "  first\n  last"),
        ("out\n", " \n", "  out"),
        ("", "", "  it printed nothing"),
        ("", "\n".join(f"line {number}" for number in range(40)), "\n".join(f"  line {n}" for n in range(28, 40))),
    ],
)
def test_a_failure_shows_the_last_words(stdout: str, stderr: str, shown: str) -> None:
    with pytest.raises(ToolError) as caught:
        Completed(("/usr/bin/pg_resetwal", "-f"), 1, stdout, stderr).check("the WAL could not be reset", hint="look")
    assert caught.value.problem == f"the WAL could not be reset\npg_resetwal ended with status 1:\n{shown}"
    assert caught.value.hint == "look"


def test_a_spawned_program_has_a_session_of_its_own_and_appends_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("before\n")
    script = "import os, sys; print(os.getsid(0) == os.getpid()); print('err', file=sys.stderr)"
    with spawn([PYTHON, "-u", "-c", script], log=log) as process:
        assert process.wait() == 0
    assert log.read_text() == "before\nTrue\nerr\n"


def test_what_cannot_be_spawned_or_become_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be run"):
        spawn(["/nonexistent"], log=tmp_path / "log")
    with pytest.raises(ToolError, match="cannot be run"):
        replace_process(["/nonexistent"], env={})


def test_the_process_becomes_the_program() -> None:
    script = (
        "from pgrescue.command import replace_process\n"
        "replace_process(['sh', '-c', 'echo $$ $ADDED; exit 7'], env={'ADDED': 'yes'})"
    )
    with subprocess.Popen([PYTHON, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate()
        assert (out, process.returncode) == (f"{process.pid} yes\n", 7)


@needs_linux
def test_a_directory_is_within_reach_under_one_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("near")
    assert run(["cat", str(WITHIN / "file")], within=tmp_path).stdout == "near"
    assert run(["ls", str(WITHIN)]).status != 0
    with spawn(["cat", str(WITHIN / "file")], log=tmp_path / "log", within=tmp_path) as process:
        process.wait()
    assert (tmp_path / "log").read_text() == "near"
    assert not WITHIN.exists()


@needs_linux
def test_threads_do_not_exchange_their_directories(tmp_path: Path) -> None:
    found: dict[int, str] = {}

    def read(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "file").write_text(str(number))
        found[number] = run(["cat", str(WITHIN / "file")], within=directory).stdout

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(6)}


@needs_linux
def test_a_number_that_is_taken_is_told_and_not_closed(tmp_path: Path) -> None:
    number = int(WITHIN.name)
    with (tmp_path / "mine").open("w") as mine:
        os.dup2(mine.fileno(), number)
        try:
            with pytest.raises(ToolError, match="is in use"):
                run(["true"], within=tmp_path)
            os.fstat(number)
        finally:
            os.close(number)


@needs_root
def test_a_program_runs_as_its_owner_without_the_callers_groups(tmp_path: Path) -> None:
    script = "echo $(id -u) $(id -G) $(umask)"
    groups = os.getgroups()
    os.setgroups([4, 27])
    try:
        done = run(["sh", "-c", script], cwd=Path("/"), owner=Owner(65534, 65534), within=tmp_path)
    finally:
        os.setgroups(groups)
    assert done.check("it failed").stdout == "65534 65534 0077\n"


def test_the_callers_own_identity_changes_nothing() -> None:
    mine = Owner(os.geteuid(), os.getegid())
    assert run(["id", "-u"], owner=mine).stdout.strip() == str(mine.uid)


ATTENDING = """
import json, sys
from pathlib import Path
from pgrescue.command import attend
script, cwd, timeout_s = json.loads(sys.argv[1])
try:
    print("status", attend(["sh", "-c", script], env={"ADDED": "geheim"}, cwd=cwd and Path(cwd), timeout_s=timeout_s))
except KeyboardInterrupt:
    print("interrupted")
"""


def attending(script: str, *, cwd: Path | None = None, timeout_s: float | None = None) -> subprocess.Popen[str]:
    """Attend to a script of the shell in a process of its own, which prints what that came to."""
    arguments = json.dumps([script, None if cwd is None else str(cwd), timeout_s])
    return subprocess.Popen(
        [PYTHON, "-c", ATTENDING, arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KEPT": "yes"},
    )


def _pids(directory: Path, *names: str) -> list[int]:
    """Wait until the processes of a script have written their numbers into files, and return these."""
    found = []
    for name in names:
        deadline = time.monotonic() + 20
        while not (directory / name).exists() or not (directory / name).read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found.append(int((directory / name).read_text()))
    return found


def _gone(*pids: int) -> bool:
    """Tell whether the processes are gone; init may need a moment to notice."""
    deadline = time.monotonic() + 2
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -TERM $$", -15)]
)
def test_a_program_that_is_attended_gives_its_status(script: str, status: int) -> None:
    out, _ = attending(script).communicate(timeout=30)
    assert out == f"status {status}\n"


def test_what_an_attended_program_prints_goes_to_stderr_and_nothing_comes_in(tmp_path: Path) -> None:
    with attending("echo $KEPT $ADDED; echo err >&2; pwd -P; cat; echo end", cwd=tmp_path) as process:
        out, err = process.communicate("no input\n", timeout=30)
    assert (out, err) == ("status 0\n", f"yes geheim\nerr\n{tmp_path.resolve()}\nend\n")


def test_an_attended_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no-such-program cannot be run"):
        attend(["no-such-program"], env={})
    with pytest.raises(ToolError, match="sh cannot be run"):
        attend(["sh", "-c", "true"], env={}, cwd=tmp_path / "absent")


# A shell with a child in front, one behind, and a grandchild, as test runners have them.
FAMILY = """
echo $$ > shell
sh -c 'echo $$ > behind; sh -c "echo \\$\\$ > grandchild; exec sleep 60"; true' &
sh -c 'echo $$ > front; exec sleep 60'
true
"""
NAMES = ("shell", "behind", "grandchild", "front")


@needs_linux
def test_of_a_program_that_takes_too_long_nothing_is_left(tmp_path: Path) -> None:
    begun = time.monotonic()
    with attending(FAMILY, cwd=tmp_path, timeout_s=1) as process:
        pids = _pids(tmp_path, *NAMES)
        assert process.communicate(timeout=30)[0] == "status None\n"
    assert 1 <= time.monotonic() - begun < 10
    assert _gone(*pids)


@needs_linux
def test_who_ignores_the_request_to_end_is_ended_by_force(tmp_path: Path) -> None:
    script = "trap '' TERM; echo $$ > shell; (trap '' TERM; sh -c 'echo $$ > behind; exec sleep 60') & sleep 60"
    with attending(script, cwd=tmp_path, timeout_s=0.5) as process:
        pids = _pids(tmp_path, "shell", "behind")
        assert process.communicate(timeout=30)[0] == "status None\n"
    assert _gone(*pids)


@needs_linux
def test_what_a_program_leaves_behind_is_ended_and_may_clear_away(tmp_path: Path) -> None:
    """The shell has ended well, long before: its child is still asked first."""
    behind = "trap 'sleep 0.3; echo cleared > away; exit' TERM; echo $$ > behind; while :; do sleep 0.05; done"
    script = f"sh -c {shlex.quote(behind)} & while ! [ -s behind ]; do sleep 0.01; done"
    with attending(script, cwd=tmp_path) as process:
        (pid,) = _pids(tmp_path, "behind")
        assert process.communicate(timeout=30)[0] == "status 0\n"
    assert (tmp_path / "away").read_text() == "cleared\n"
    assert _gone(pid)


@needs_linux
@pytest.mark.parametrize("is_stubborn", [False, True])
def test_an_interruption_ends_all_that_an_attended_program_started(tmp_path: Path, *, is_stubborn: bool) -> None:
    with attending(("trap '' TERM INT\n" if is_stubborn else "") + FAMILY, cwd=tmp_path) as process:
        pids = _pids(tmp_path, *NAMES)
        process.send_signal(signal.SIGINT)
        if is_stubborn:
            # As who gets impatient does.
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert _gone(*pids)


@needs_linux
def test_ctrl_c_does_not_reach_an_attended_program_by_itself(tmp_path: Path) -> None:
    """A terminal sends it to the whole group; who attends decides."""
    with attending("echo $$ > shell; ps -o pgid= -p $$ > group; sleep 60", cwd=tmp_path) as process:
        (shell, group) = _pids(tmp_path, "shell", "group")
        assert group == shell != os.getpgid(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert _gone(shell)


@needs_linux
def test_an_interruption_in_the_moment_of_the_start_leaves_nothing(tmp_path: Path) -> None:
    """The program may be at work before its caller has heard of it, on a busy machine above all."""
    for number in range(10):
        directory = tmp_path / str(number)
        directory.mkdir()
        with attending("echo $$ > shell; exec sleep 60", cwd=directory) as process:
            while not (directory / "shell").exists():
                time.sleep(0.0005)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20)[0] == "interrupted\n"
        assert _gone(*_pids(directory, "shell"))
