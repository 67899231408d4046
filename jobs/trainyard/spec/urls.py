"""What a URL or a path in a manifest or an environment variable must be."""

from urllib.parse import urlsplit


def check_server(url: str) -> str:
    """The URL of an S3-compatible server. Raises ValueError for what is none, with the fix and without a password."""
    if "@" in url:
        raise ValueError("holds a name or a password: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no URL of a server: write http://host:port or https://host")
    return url


def check_storage(uri: str) -> str:
    """The URI of a storage, or a local path. Raises ValueError for what is neither, with the fix."""
    scheme, found, rest = uri.partition("://")
    if found and (scheme not in ("s3", "gs", "az", "file") or (scheme != "file" and not rest.partition("/")[0])):
        fix = "write s3://bucket/prefix, gs://…, az://…, file:///…, or a local path"
        raise ValueError(f"{shown(uri)} is no storage: {fix}")
    return uri


def shown(uri: str) -> str:
    """A URI without the name and the password that may stand in it."""
    scheme, found, rest = uri.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
