"""The `trainyard` command. Verbs are imported when they are used, so that --help stays fast."""

import importlib
import os
import sys

import click

from trainyard import __version__, extras
from trainyard.errors import ExitCode, TrainyardError

VERBS = {
    "init": "Write a commented manifest that runs.",
    "validate": "Check a manifest: every mistake at once, with its line and the fix.",
    "plan": "Show what a job would do, and why, without doing it.",
    "run": "Train on this machine.",
    "eval": "Measure a trained model or a checkpoint on data.",
    "predict": "Use a trained model.",
    "ckpt": "Look at the checkpoints of a run.",
    "submit": "Train on a cluster: upload what is local, and apply.",
    "ls": "List the jobs of a cluster.",
    "status": "Show what a job on a cluster does, and why it waits.",
    "logs": "Show or follow the log of a job on a cluster.",
    "events": "Show what has happened to a job on a cluster.",
    "wait": "Wait until a job on a cluster has ended.",
    "suspend": "Save a checkpoint of a job, and free its pods.",
    "resume": "Let a suspended job go on.",
    "stop": "Save a checkpoint of a job, and delete the job.",
    "rm": "Delete a job from a cluster; its storage stays.",
    "dashboard": "Open the Ray dashboard of a job.",
    "doctor": "Find out why a cluster does not run jobs.",
    "explain": "Show what a field of the manifest means.",
    "schema": "Print the JSON Schema of the manifest, or its CRD.",
    "version": "Show the versions of trainyard and of what it trains with.",
}
_INTERNAL = ("agent",)
"""What programs call, not people."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS and name not in _INTERNAL:
            return None
        module = importlib.import_module(f"trainyard.cli.{name}_")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no verb {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="trainyard")
def trainyard() -> None:
    """Train Hugging Face models on a Kubernetes cluster, or on this machine, from one manifest.

    \b
    trainyard init text-classification > job.yaml
    trainyard run job.yaml

    Exit codes: 0 ok, 1 unexpected, 2 usage, 3 invalid manifest, 4 not found, 5 job failed, 6 timed out,
    7 cluster or storage unreachable, 130 interrupted.
    """  # noqa: D301 - the character itself is click's mark of lines that stay as they are


def main() -> None:
    """The entry point: runs a verb, and turns errors that are meant for people into a line and an exit code."""
    try:
        # Without standalone mode click returns the code of ctx.exit() and of click.exceptions.Exit.
        returned = trainyard(standalone_mode=False)
        code = ExitCode(returned) if isinstance(returned, int) else ExitCode.OK
    except click.UsageError as error:
        error.show()
        code = ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        code = ExitCode.UNEXPECTED
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except TrainyardError as error:
        click.echo(f"error: {error}" if "\n" not in str(error) else str(error), err=True)
        code = error.exit_code
    except ModuleNotFoundError as error:
        missing = extras.explain(error)
        if missing is None:
            raise
        click.echo(f"error: {missing}", err=True)
        code = missing.exit_code
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more to say, and no traceback for it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK
    sys.exit(int(code))


if __name__ == "__main__":
    main()
