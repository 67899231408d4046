"""Sentences about a storage that failed: what is wrong and the fix, with the provider's own words behind.

obstore has classes for a few failures only. What else is known stands in its English text and in the body of the
provider's answer, which it quotes; all of that is read here. tests/store/test_messages.py has the library say it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from obstore.exceptions import NotFoundError, PermissionDeniedError, UnauthenticatedError

from trainyard.protocol import foreign

Kind = Literal["Missing", "NoPlace", "NoCredentials", "Denied", "Unreached", "Full", "Other"]
"""Missing: the object. NoPlace: the bucket or container. Unreached: the server."""

SERVER_VARIABLES = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
"""The variable that names another server than the provider's, where the manifest does not."""
_PLACES = {"s3": "bucket", "gs": "bucket", "az": "container", "file": "folder"}
_NO_PLACE = ("NoSuchBucket", "ContainerNotFound", "FilesystemNotFound", "The specified bucket does not exist")
_METADATA = ("169.254.169.254", "metadata.google.internal", "/latest/api/token", "/metadata/identity/oauth2")
"""Signs of the server that gives machines of a cloud their credentials. It is asked when none are set."""
_UNREACHED = "error sending request"
_DENIED = ("status code: 401", "status code: 403")
"""Of a listing obstore has no class for it."""
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r'<Message>([^<]*)</Message>|"message"\s*:\s*"([^"]*)"')
_BODY = re.compile(r"[<{].*", re.DOTALL)
_MAX_WORDS = 400
_SET = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for pods in the Secret that spec.storage.secret names)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (for pods in the Secret that "
    "spec.storage.secret names)",
    "file": "check that the folder exists and can be written",
}
_PROFILES = ". Profiles of ~/.aws are not read: aws configure export-credentials --format env prints what to set"


@dataclass(frozen=True)
class Failure:
    """Why a request failed, for the person who set the storage up."""

    kind: Kind
    what: str
    fix: str
    words: str = ""
    """The provider's own; empty where `what` says the same."""

    @property
    def sentence(self) -> str:
        """What, the fix, and the provider's words."""
        return f"{self.what}. Fix: {self.fix}" + (f" ({self.words})" if self.words else "")


def failure(scheme: str, place: str, error: BaseException) -> Failure:
    """What obstore's error means. `place`: the bucket or container."""
    text = str(error)
    words = provider_words(error)
    if any(sign in text for sign in _NO_PLACE):
        noun = _PLACES[scheme]
        return Failure("NoPlace", f"{noun} {place} does not exist", "create it, or correct spec.storage.uri", words)
    if isinstance(error, NotFoundError | FileNotFoundError):
        return Failure("Missing", "there is no such object", "", words)
    if foreign.is_disk_full(text):
        return Failure("Full", "the disk is full", "free space there, then run again")
    if scheme != "file" and any(sign in text for sign in _METADATA):
        return Failure("NoCredentials", "no credentials", _SET[scheme] + _profiles(scheme), words)
    is_denied = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    if is_denied or any(sign in text for sign in _DENIED):
        rights = "" if scheme == "file" else ", and check what they may do there"
        return Failure("Denied", "access denied", _SET[scheme] + rights, words)
    if scheme in SERVER_VARIABLES and _UNREACHED in text:
        return Failure("Unreached", words, _way(scheme))
    return Failure("Other", words, fix(scheme))


def fix(scheme: str) -> str:
    """What to look at when a storage fails for no known reason."""
    return _SET[scheme] if scheme == "file" else f"{_SET[scheme]}, and check spec.storage.uri and endpoint"


def provider_words(error: BaseException) -> str:
    """The sentence in obstore's report: without its debug dump, and a body of XML or JSON by its code and message."""
    text = str(error).split("\n\nDebug source:")[0].strip()
    code, message = _CODE.search(text), _MESSAGE.search(text)
    said = (message[1] or message[2] or "").strip().splitlines() if message is not None else []
    parts = [part for part in (code[1] if code is not None else "", said[0] if said else "") if part]
    sentence = ": ".join(parts) or _BODY.sub("", text).strip(" :") or type(error).__name__
    return " ".join(sentence.split())[:_MAX_WORDS].rstrip(".")


def _way(scheme: str) -> str:
    own = "the region's" if scheme == "s3" else "the provider's"
    variable = SERVER_VARIABLES[scheme]
    return f"check that this machine reaches the server: spec.storage.endpoint, {variable} or {own}"


def _profiles(scheme: str) -> str:
    is_set = "AWS_PROFILE" in os.environ or Path("~/.aws/credentials").expanduser().exists()
    return _PROFILES if scheme == "s3" and is_set else ""
