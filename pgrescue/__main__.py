"""The program `pgrescue`."""

from __future__ import annotations

import sys
import traceback

from pgrescue.cli.app import app
from pgrescue.errors import ExitStatus
from pgrescue.signals import end_as_interrupted


def main() -> None:
    """Run the command line."""
    end_as_interrupted()
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
