"""What a URL or a path in a manifest or an environment variable must be."""

from urllib.parse import urlsplit

_BUCKETS = ("s3://", "gs://", "az://")
_MISSPELT = tuple(f"{scheme}{end}" for scheme in ("s3", "gs", "az", "file") for end in ("//", ":/"))


def check_server(url: str) -> str:
    """The URL of a server of a storage. Raises ValueError for what is none, with the fix and without a password."""
    if "@" in url:
        raise ValueError("holds a name or a password: give them by the environment (AWS_*, GOOGLE_*, AZURE_*)")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number or above 65535, half an IPv6 address
        usable = False
    if not usable:
        raise ValueError(f"{url} is no URL of a server: write http://host:port or https://host")
    return url


def check_storage(uri: str) -> str:
    """The URI of a storage, or a local path. Raises ValueError for what is neither, with the fix."""
    scheme, found, rest = uri.partition("://")
    host = rest.partition("/")[0]
    known = (scheme in ("s3", "gs", "az") and host) or (scheme == "file" and host in ("", "localhost"))
    if not known if found else uri.startswith(_MISSPELT):
        fix = "write s3://bucket/prefix, gs://…, az://…, file:///…, or a local path"
        raise ValueError(f"{shown(uri)} is no storage: {fix}")
    return uri


def is_bucket(uri: str) -> bool:
    """Whether a URI names a bucket of an object store."""
    return uri.startswith(_BUCKETS)


def check_source(source: str) -> str:
    """A path, a name of the hub, or the URI of a bucket. Raises ValueError for another URI, with the fix."""
    scheme, found, rest = source.partition("://")
    if not found or scheme in ("s3", "gs", "az", "file"):
        return source
    if scheme == "hf":
        raise ValueError(f"{shown(source)}: of the hub write the name alone: {rest.removeprefix('datasets/')}")
    fix = "write s3://bucket/path, gs://…, az://…, a path, or a name of the hub"
    raise ValueError(f"{shown(source)}: nothing is read from {scheme}://; {fix}")


def shown(uri: str) -> str:
    """A URI without the name and the password that may stand in it."""
    scheme, found, rest = uri.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
