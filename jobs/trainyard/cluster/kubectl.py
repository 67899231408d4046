"""The cluster, through kubectl.

Whoever has a cluster has kubectl, set up for it: its way to log in (exec plugins, OIDC, proxies) is never ours to
repeat, and it starts in a tenth of the time that the Python client needs to be imported.
"""

import contextlib
import json
import math
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from trainyard.cluster import configuration
from trainyard.errors import ExitCode, ManifestError, NotFoundError, TrainyardError

JOB = "trainerjob.trainyard.dev"
_MANAGER = "trainyard"
_UNREACHABLE = ("Unable to connect", "refused", "EOF", "no such host", "timeout", "no route to host")
_REQUEST_TIMEOUT = "--request-timeout=30s"
_LOOK_SECONDS = 5.0
_TEXT: Any = {"encoding": "utf-8", "errors": "replace"}
"""A log may hold any bytes, and none of them may end the verb that shows it."""


class ClusterError(TrainyardError):
    """The cluster cannot be reached, or does not let us."""

    exit_code = ExitCode.UNREACHABLE


class TimedOutError(TrainyardError):
    """What was waited for did not come in time."""

    exit_code = ExitCode.TIMED_OUT


@dataclass(frozen=True)
class Kubectl:
    """kubectl with a context and a namespace; without, those of its configuration."""

    namespace: str | None = None
    context: str | None = None

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints. Raises ClusterError, NotFoundError or ManifestError."""
        command = self.command(*arguments, _REQUEST_TIMEOUT)
        done: subprocess.CompletedProcess[str]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, **_TEXT)
        if done.returncode:
            self._fail(done.stderr)
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object or a list, as JSON."""
        found: dict[str, Any] = json.loads(self.run("get", *arguments, "--output=json"))
        return found

    def job(self, name: str) -> dict[str, Any]:
        """A TrainerJob. Raises NotFoundError."""
        return self.get(JOB, name)

    def pod(self, job: str, index: int) -> dict[str, Any] | None:
        """A pod of a job; None when there is none."""
        try:
            return self.get("pod", f"{job}-{index}")
        except NotFoundError:
            return None

    def apply(self, manifest: dict[str, Any], dry_run: bool = False) -> str:
        """Server-side apply; returns what kubectl says of it."""
        dry = ["--dry-run=server"] if dry_run else []
        given = ["apply", "--server-side", f"--field-manager={_MANAGER}", "--force-conflicts", *dry, "--filename=-"]
        return self.run(*given, stdin=json.dumps(manifest)).strip()

    def diff(self, manifest: dict[str, Any]) -> str:
        """What applying a manifest would change, as a unified diff; empty when nothing would."""
        command = self.command("diff", "--server-side", f"--field-manager={_MANAGER}", "--force-conflicts", "-f", "-")
        done = subprocess.run(command, input=json.dumps(manifest), capture_output=True, text=True, check=False)
        if done.returncode > 1:  # 1 means that there is a difference
            self._fail(done.stderr)
        return done.stdout

    def lines(self, *arguments: str, check: bool = False) -> Iterator[str]:
        """The lines that kubectl prints, as they come, until it ends or the reader stops reading.

        With `check` its failure raises what run() raises; without, it is an end like any other.
        """
        command = self.command(*arguments)
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, **_TEXT) as process,
        ):
            assert process.stdout is not None
            try:
                yield from process.stdout
                if check and process.wait():
                    said.seek(0)
                    self._fail(said.read())
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()

    def until_changed(self, name: str, at_most: float = math.inf) -> None:
        """Return at the next change of a job, or after a while: what it waits for may come without one."""
        command = self.command("get", JOB, name, "--watch-only", "--output=name")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            started = time.monotonic()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                selector.select(min(at_most, _LOOK_SECONDS))
            process.kill()
        time.sleep(max(0.0, 0.5 - (time.monotonic() - started)))  # a watch that is refused must not spin

    def current_namespace(self) -> str:
        """The namespace that commands are for."""
        if self.namespace:
            return self.namespace
        command = self.command("config", "view", "--minify", "--output=jsonpath={..namespace}")
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "default"

    def command(self, *arguments: str) -> list[str]:
        """The command line for arguments. Raises ClusterError without kubectl."""
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError("kubectl is not on the PATH: install it (https://kubernetes.io/docs/tasks/tools)")
        where = [f"--context={self.context}"] if self.context else []
        return [program, *where, *([f"--namespace={self.namespace}"] if self.namespace else []), *arguments]

    def _fail(self, said: str) -> NoReturn:
        """Raise what kubectl's words mean: with what the user has set, and what to do."""
        text = said.strip().removeprefix("error: ")
        if "(NotFound)" in text:
            what = text.partition("(NotFound): ")[2] or text
            raise NotFoundError(f"{what} in namespace {self.current_namespace()}")
        if "(Invalid)" in text or " is invalid: " in text or "(BadRequest)" in text or "strict decoding error" in text:
            raise ManifestError(text)
        program = self.command()[0]
        fault = configuration.fault(program, self.context)
        if fault is not None:
            raise ClusterError(fault)
        if "the server doesn't have a resource type" in text or "no matches for kind" in text:
            raise ClusterError(
                "the cluster knows no TrainerJob: install the chart (helm install trainyard charts/trainyard …), "
                "or choose another context with --context"
            )
        last = text.splitlines()[-1].removeprefix("error: ") if text else "kubectl failed without a word"
        if "unable to listen on any of the requested ports" in last:
            raise ClusterError(
                f"{last}: something else listens there; choose another with --port, or a free one with 0"
            )
        if any(sign in last for sign in _UNREACHABLE):
            server = configuration.server(program, self.context)
            raise ClusterError(
                f"{server} cannot be reached: {last}. Fix: look at kubectl cluster-info, or use --context"
            )
        raise ClusterError(last)
