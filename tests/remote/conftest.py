"""The room that all tests of clients on other hosts share."""

from __future__ import annotations

from tests.remote.room import fixtures

room, ann, bob = fixtures("acl", "package")
