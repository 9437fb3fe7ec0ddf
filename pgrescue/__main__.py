"""The program `pgrescue`."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING

from pgrescue.cli.app import app
from pgrescue.errors import ExitStatus

if TYPE_CHECKING:
    from types import FrameType


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a termination ends as Ctrl-C does, so that containers and files are left in order.

    So does a lost terminal, unless nohup said that it does not matter.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        # How typer passes Ctrl-C on.
        if ended.code == ExitStatus.INTERRUPTED:
            sys.stderr.write("\nInterrupted. Nothing is lost: run the same command again.\n")
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ExitStatus.FAILED)
    except Exception:  # noqa: BLE001 - the last line of defence
        traceback.print_exc()
        sys.stderr.write("\nThis is a bug in pgrescue. The snapshot was not touched. Please report the lines above.\n")
        sys.exit(ExitStatus.BUG)


if __name__ == "__main__":
    main()
