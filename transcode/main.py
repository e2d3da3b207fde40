"""Entry point of the command line: errors in a sentence, exit codes, commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 a check failed (verify), 2 bad input or a missing tool, 130 interrupted.
    """
    from transcode.shadow import shadowed

    if sentence := shadowed():
        sys.exit(f"transcode: {sentence}")
    from transcode.commands import app

    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("transcode: interrupted; the same command goes on from here\n")
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"transcode: {error}\n")
        sys.exit(2)
