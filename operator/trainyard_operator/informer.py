"""A copy of a collection that follows the API server: listed once, then watched."""

import logging
import threading
from collections.abc import Callable

from trainyard_operator.api import Api, ApiError, Object

log = logging.getLogger(__name__)

_PAUSE = 1.0
_DROPPED = ("managedFields",)
"""Metadata that nobody here reads: half of an object's memory."""


def key_of(obj: Object) -> str:
    """namespace/name, or name for what has no namespace."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


class Informer(threading.Thread):
    """Keeps `objects` as the API server has them, and tells each change, but not one between two that are alike."""

    def __init__(
        self,
        api: Api,
        path: str,
        changed: Callable[[Object], None],
        index: Callable[[Object], str | None] | None = None,
        alike: Callable[[Object, Object], bool] = lambda before, after: False,
        **query: str,
    ) -> None:
        super().__init__(name=f"informer {path}", daemon=True)
        self._api, self._path, self._changed, self._query = api, path, changed, query
        self._index, self._alike = index, alike
        self.objects: dict[str, Object] = {}
        self._by_index: dict[str, dict[str, Object]] = {}
        self.synced = threading.Event()
        self._lock = threading.Lock()

    def indexed(self, value: str) -> list[Object]:
        """The objects whose index has a value."""
        with self._lock:
            return list(self._by_index.get(value, {}).values())

    def run(self) -> None:
        """Follow for ever; whatever goes wrong, list anew."""
        version = ""
        while True:
            try:
                version = version or self._list()
                for event in self._api.watch(self._path, version, **self._query):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._take(event["object"], gone=event["type"] == "DELETED")
            except ApiError as error:
                if error.status not in (0, 410):
                    log.warning("%s: %s", self._path, error)
                version = "" if error.status else version
                threading.Event().wait(0.0 if error.status == 410 else _PAUSE)
            except Exception:  # without this thread the operator is blind: a surprise must not end it
                log.exception("%s: a bug", self._path)
                version = ""
                threading.Event().wait(_PAUSE)

    def _list(self) -> str:
        answer = self._api.request("GET", self._path, query=self._query)
        listed = {key_of(item): item for item in answer["items"]}
        for key in [key for key in self.objects if key not in listed]:
            self._take(self.objects[key], gone=True)
        for item in listed.values():
            self._take(item, gone=False)
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    def _take(self, obj: Object, gone: bool) -> None:
        for name in _DROPPED:
            obj["metadata"].pop(name, None)
        key = key_of(obj)
        with self._lock:
            before = self.objects.get(key)
            if before is not None:  # by its own index: under its name something else may be there by now
                self._unindex(key, before)
            if gone:
                self.objects.pop(key, None)
            else:  # in place: others read without the lock, and must not find it gone for a moment
                self.objects[key] = obj
                if self._index and (value := self._index(obj)) is not None:
                    self._by_index.setdefault(value, {})[key] = obj
        if gone or before is None or not self._alike(before, obj):
            self._changed(obj)

    def _unindex(self, key: str, obj: Object) -> None:
        value = self._index(obj) if self._index else None
        if value is not None:
            group = self._by_index[value]
            del group[key]
            if not group:
                del self._by_index[value]
