"""Entry point of the command line: errors in a sentence, exit codes, commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 a check failed (verify), 2 bad input or a missing tool, 130 interrupted.
    """
    from transcode.shadow import shadowed

    if sentence := shadowed():
        sys.stderr.write(f"transcode: {sentence}\n")
        sys.exit(2)
    import transcode.commands  # noqa: F401  (the commands register themselves)
    import transcode.curves  # noqa: F401
    import transcode.models  # noqa: F401
    import transcode.units  # noqa: F401
    from transcode.options import app

    try:
        app()
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of Ctrl-C
            sys.stderr.write("transcode: interrupted; the same command goes on from here\n")
        raise
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.stderr.write(f"transcode: {error}\n")
        sys.exit(2)
