"""Each way is tried in which one user of a host could harm another by files, in the drop box or in answers.

All are real users, and each daemon is a user with the capabilities of its unit. Alice is the attacker, and Bob wants an
answer. For what jobs do to each other in sandboxes, see test_rivals_jobs.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.model.retention import Rules
from tests.engines import REPOSITORY
from tests.rights import run_as
from tests.test_users import ALICE, BOB, HELLO, Installed, written
from tests.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
CAROL = 64_103
RANGE = 700_000  # first of Alice's subordinate uids
ROLES = ("health", "builder", "intake", "executor")


@contextlib.contextmanager
def installation(mount: str = "") -> Iterator[Installed]:
    """Yield daemons to start. With ``mount``, the spool is on a tmpfs with these options."""
    directory = Path(tempfile.mkdtemp(prefix="spoold-rivals."))  # other users can get there
    if mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", mount, "tmpfs", str(directory)], check=True)
    directory.chmod(0o711)
    made = Installed(directory)
    try:
        yield made
    finally:
        made.stop()
        if mount:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
        shutil.rmtree(directory)


@pytest.fixture
def installed() -> Iterator[Installed]:
    with installation() as made:
        yield made


@contextlib.contextmanager
def going_on(uid: int, script: str) -> Iterator[None]:
    """Run a user's shell script while the block runs."""
    with subprocess.Popen(["sh", "-c", script], user=uid, group=uid, extra_groups=[], cwd="/") as shell:
        try:
            yield
        finally:
            shell.kill()


def status(installed: Installed, id_: str) -> dict[str, Any]:
    """Return the status that the operator sees."""
    config = str(installed.directory / "intake.toml")
    command = [sys.executable, "-m", "spoold.cli.ctl", "--config", config, "status", id_, "--json"]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return told


def runs(installed: Installed, id_: str) -> bool:
    return any(name.startswith(f"{id_}@") for name in os.listdir(installed.spool / "running"))


def test_nobody_writes_what_others_read(installed: Installed) -> None:
    """Alice can forge neither a refusal that the operator reads, nor an answer for Bob, who uses the same id."""
    for role in ROLES:
        installed.start(role)
    installed.drop(ALICE, "wrong.json", {"fils": []})
    installed.drop(ALICE, "squatted.json")
    for id_ in ("wrong", "squatted"):
        real, path = installed.response(ALICE, id_), installed.spool / "done" / f"{id_}.response.json"
        forged = json.dumps(real | {"status": "COMPLETED", "reason": "forged"})
        run_as(ALICE, f"chmod 644 {path}; printf %s '{forged}' >{path}; chmod 444 {path}")
        assert status(installed, id_) == real
        assert run_as(BOB, f"cat {path}").returncode != 0
    installed.drop(BOB, "squatted.json", {"files": [{"name": "run.sh", "content": "echo bob"}]})
    until(lambda: list(installed.spool.glob(f"done/squatted@{BOB}-*.refused.json")))
    (refusal,) = installed.spool.glob(f"done/squatted@{BOB}-*.refused.json")
    assert run_as(ALICE, f"cat {refusal}").returncode != 0
    assert "already" in json.loads(run_as(BOB, f"cat {refusal}").stdout)["reason"]


def grown_old(installed: Installed, uid: int, id_: str, seconds: float) -> None:
    installed.drop(uid, f"{id_}.json")
    installed.response(uid, id_)
    then = time.time() - seconds
    os.utime(installed.spool / "done" / f"{id_}.json", (then, then))


def test_nobodys_answers_go_for_the_length_of_anothers(installed: Installed) -> None:
    """A swept old entry shows that retention has run. Two of them show two whole rounds."""
    for role in ("builder", "intake", "executor"):
        installed.start(role)
    grown_old(installed, BOB, "kept", 7200)
    grown_old(installed, ALICE, "long", 7200)
    path = installed.spool / "done" / "long.response.json"
    run_as(ALICE, f"chmod 600 {path}; truncate -s 17G {path}")
    installed.start("health", retention=Rules(interval=0.2))
    for id_ in ("first", "second"):
        grown_old(installed, CAROL, id_, 40 * 86400)
        until(lambda id_=id_: not (installed.spool / "done" / f"{id_}.response.json").exists())  # type: ignore[misc] # mypy cannot infer it
    assert installed.response(BOB, "kept")["status"] == "COMPLETED"


def test_nobody_fills_the_disk_through_the_daemons() -> None:
    """Alice fills her share. Her next file waits, and Bob's submission is answered."""
    with installation("size=200m,nr_inodes=100000") as installed:
        for role in ROLES:
            installed.start(role)
        until((installed.spool / "tmp" / "health.count").exists)
        incoming, taken = installed.spool / "incoming", 0
        content = 'printf \'{"files": [{"name": "run.sh", "content": "\'; head -c 5000000 /dev/zero | tr \'\\0\' \'#\''
        while not [name for name in os.listdir(incoming) if name.startswith("big")]:
            made = run_as(ALICE, f"cd {incoming}; {{ {content}; printf '\"}}]}}'; }} >.a && mv .a big-{taken}.json")
            assert made.returncode == 0, made.stderr
            waits = incoming / f"big-{taken}.json"
            until(lambda waits=waits: not waits.exists() or "used up a share" in installed.said())  # type: ignore[misc] # mypy cannot infer it
            taken += 1
        assert 5 < taken < 20, "one user may fill a quarter of the disk"
        installed.drop(BOB, "small.json")
        assert installed.response(BOB, "small")["status"] == "COMPLETED"


def test_many_uids_of_one_person_are_one(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are there before intake looks, and Bob's is the last. Jobs begin in order."""
    ranges = installed.directory / "subuid"
    ranges.write_text(f"{ALICE}:{RANGE}:65536\n")
    monkeypatch.setenv("SPOOLD_TEST_SUBUID", str(ranges))
    for number in range(40):
        installed.drop(RANGE + number, f"a{number}.json", HELLO | {"inputs": "nap 0.05"})
    installed.drop(BOB, "bob.json")
    for role in ("health", "builder", "intake"):
        installed.start(role)
    until(lambda: not [name for name in os.listdir(installed.spool / "incoming") if name.endswith(".json")])
    installed.start("executor")
    assert installed.response(BOB, "bob")["status"] == "COMPLETED"
    begun = re.findall(r"submission=([a-z0-9]+) .*msg=running", (installed.directory / "log").read_text())
    assert begun.index("bob") < 12


def test_a_file_that_is_anothers_cancels_nothing(installed: Installed) -> None:
    """Bob moves an empty file, first root's and then Alice's, to the name that cancels Alice's job."""
    installed.settles(0.3)
    for role in ROLES:
        installed.start(role)
    installed.drop(ALICE, "long.json", HELLO | {"inputs": "nap 600"})
    until(lambda: runs(installed, "long"))
    home, cancel = installed.directory / "home", installed.spool / "incoming" / "long.cancel"
    home.mkdir()
    os.chown(home, BOB, BOB)
    for number, owner in enumerate((0, ALICE)):
        (home / "empty").touch()
        os.chown(home / "empty", owner, owner)
        moved = run_as(BOB, f"mv {home}/empty {cancel}")
        assert moved.returncode == 0, moved.stderr
        until(lambda: not cancel.exists())
        installed.drop(BOB, f"bob-{number}.json")
        installed.response(BOB, f"bob-{number}")
        assert runs(installed, "long")
    run_as(ALICE, f"cd {cancel.parent} && echo long >.own && mv .own {cancel}")
    assert installed.response(ALICE, "long")["status"] == "CANCELLED"


def test_nobody_keeps_a_name_from_another(installed: Installed) -> None:
    """Alice holds names with an endless upload and keeps touching a cancel. Once they are gone, Bob's files get in."""
    installed.settings = msgspec.structs.replace(
        installed.settings, spool=msgspec.structs.replace(installed.settings.spool, settle=20.0, upload=2.0)
    )
    for role in ROLES:
        installed.start(role)
    incoming, own, guessed = installed.spool / "incoming", f"{BOB}.next", "guessed"
    installed.drop(BOB, f"{BOB}.long.json", HELLO | {"inputs": "nap 600"})
    until(lambda: runs(installed, f"{BOB}.long"))
    names = [f"{own}.json", f"{guessed}.json", f"{BOB}.long.cancel"]
    run_as(ALICE, f"cd {incoming}; for f in {' '.join(names)}; do printf '{{' >.x; ln .x $f; rm .x; done")
    goes_on = "for f in *.json; do printf ' ' 2>/dev/null >&3; done; touch -c *.cancel; sleep 0.05"
    opened = "".join(f"exec {number}<>{name}; " for number, name in enumerate(names[:2], 3))
    with going_on(ALICE, f"cd {incoming}; {opened} while :; do {goes_on}; printf ' ' >&4; done 2>/dev/null"):
        until(lambda: not any((incoming / name).exists() for name in names))
        installed.drop(BOB, f"{own}.json")
        run_as(BOB, f"echo {BOB}.long >{incoming}/{BOB}.long.cancel")
        assert installed.response(BOB, own)["status"] == "COMPLETED"
        assert installed.response(BOB, f"{BOB}.long")["status"] == "CANCELLED"
    assert installed.response(ALICE, guessed)["status"] == "REJECTED"


def examples() -> list[tuple[str, str]]:
    """Return the shell examples of all pages that submit something, each with its page."""
    found = []
    for page in sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("contrib/**/*.md")]):
        blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        name = str(page.relative_to(REPOSITORY))
        found += [(name, block) for block in blocks if re.search(r"incoming/(\S*\.json|\s)", block)]
    return found


def test_every_example_makes_a_file_of_its_own() -> None:
    """The name cannot be guessed, and the file replaces nothing."""
    assert {page for page, _ in examples()} >= {"README.md", "spool-layout.md", "contrib/docs/operator.md"}
    assert [example for example in examples() if "mktemp" not in example[1] or "mv -n" not in example[1]] == []


def test_the_examples_write_into_nobody_elses_file(installed: Installed) -> None:
    """Bob has made files that others may write to, under names that an example might use."""
    for role in ROLES:
        installed.start(role)
    incoming, done = installed.spool / "incoming", installed.spool / "done"
    run_as(BOB, f"umask 0; cd {incoming}; for id in hello hello-1 job; do : >$id.json; : >.$id.tmp; done")
    local = [
        block
        for page, block in examples()
        if re.search("^spool=/", block, re.MULTILINE) and "how-to" not in page  # tests/docs runs the others
    ]
    assert len(local) >= 2
    for block in local:
        script = re.sub(r"^spool=\S+", f"spool={installed.spool}", block, flags=re.MULTILINE)
        ran = run_as(ALICE, f"set -e; {script}")
        assert json.loads(ran.stdout)["status"] == "COMPLETED", ran.stderr
        own = done / f"{json.loads(ran.stdout)['Submission_id']}.json"
        assert "echo hello" in own.read_text()
        assert run_as(BOB, f"cat {own}").returncode != 0
    assert written(incoming) == []


def test_nobody_fills_the_log(installed: Installed) -> None:
    installed.settles(0.3)
    for role in ROLES:
        installed.start(role)
    made = run_as(ALICE, f'cd {installed.spool}/incoming; for n in $(seq 3000); do : >"$n.txt"; done')
    assert made.returncode == 0, made.stderr
    installed.drop(BOB, "bob.json")
    assert installed.response(BOB, "bob")["status"] == "COMPLETED"
    until(lambda: ".txt" in (installed.directory / "log").read_text())
    lines = [line for line in (installed.directory / "log").read_text().splitlines() if ".txt" in line]
    assert len(lines) < 30  # one a minute


FLOODS = {  # what Alice's process does in incoming/, once it runs as her
    "writes": """
files = [os.open(f".{number}", os.O_CREAT | os.O_WRONLY) for number in range(2)]
while True:
    for file in files:
        os.pwrite(file, b"x", 0)
""",
    "closes": """
while True:
    for number in range(2):
        os.close(os.open(f".{number}", os.O_CREAT | os.O_WRONLY))
""",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_events_hides_nobodys_file(installed: Installed, flood: str) -> None:
    """Intake never scans here, so a lost event that it doesn't notice would leave a file there."""
    spool = msgspec.structs.replace(installed.settings.spool, scan=3600.0)
    for role in ROLES:
        installed.start(role, spool=spool if role == "intake" else installed.settings.spool)
    become = f"import os; os.setgroups([]); os.setresgid(*3 * [{ALICE}]); os.setresuid(*3 * [{ALICE}])"
    command = [sys.executable, "-c", become + FLOODS[flood]]  # she may be unable to run the interpreter herself
    with subprocess.Popen(command, cwd=installed.spool / "incoming") as process:
        try:
            for number in range(10):
                installed.drop(BOB, f"bob{number}.json")
                assert installed.response(BOB, f"bob{number}")["status"] == "COMPLETED"
            assert process.poll() is None
        finally:
            process.kill()


def test_nobody_fills_the_drop_box_with_names(installed: Installed) -> None:
    """Alice's names are removed down to the bound. Bob's upload stays, though it is hidden like hers."""
    for role in ROLES:
        installed.start(role)
    incoming = installed.spool / "incoming"
    assert run_as(BOB, f"cd {incoming} && : >.upload").returncode == 0
    made = run_as(ALICE, f"cd {incoming}; seq 30000 | sed s/^/.a/ | xargs touch")
    assert made.returncode == 0, made.stderr
    until(lambda: sum(name.startswith(".a") for name in os.listdir(incoming)) <= 20_000)
    assert (incoming / ".upload").exists()
    until(lambda: f"uid={ALICE}" in removed(installed))
    assert f"uid={BOB}" not in removed(installed)
    installed.drop(BOB, "bob.json")
    assert installed.response(BOB, "bob")["status"] == "COMPLETED"


def removed(installed: Installed) -> str:
    """Return the log lines about names that were too many."""
    lines = (installed.directory / "log").read_text().splitlines()
    return "\n".join(line for line in lines if "beyond what one user may have" in line)
