"""The room that all tests of clients from elsewhere share: to make it takes a second or two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote import room as rooms
from tests.remote.room import Room, User


@pytest.fixture(scope="package")
def room() -> Iterator[Room]:
    with rooms.room() as made:
        yield made


@pytest.fixture(scope="package")
def ann(room: Room) -> User:
    return room.users[0]


@pytest.fixture(scope="package")
def bob(room: Room) -> User:
    return room.users[1]
