"""The package on a machine that boots: systemd, several users, kills, reboots and an upgrade.

The tests share one machine, and each leaves it running. $SPOOLD_TEST_REBOOTS sets how often the long version reboots,
each time at a random moment, with many submissions on their way.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.doctor import protection
from spoold.host import machine
from spoold.model.response import Outcome, Response, Status
from tests import engines
from tests.boot.conftest import USERS, commands
from tests.boot.machine import PATIENCE, Machine, wait_until

# The first test builds the package, boots the machine and installs the package. Other tests wait for several starts of
# all daemons.
pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(1800 * engines.SLOWNESS)]

SPOOL = "/var/spool/spoold"
REBOOTS = int(os.environ.get("SPOOLD_TEST_REBOOTS", "0"))


def units(machine: Machine) -> list[str]:
    """Return the services that the target starts."""
    return sorted(unit for unit in machine.show("spoold.target", "Wants").split() if unit.endswith(".service"))


def role(unit: str) -> str:
    """Return the role of a unit's daemon: spoold-executor@1.service is an executor."""
    return unit.removeprefix("spoold-").removesuffix(".service").partition("@")[0]


def drop(machine: Machine, user: str, jobs: dict[str, str], expression: str = "") -> None:
    """Let a user copy requests (scripts by id) into the drop box, all with the same cutor.nix if there is one."""
    shell = [{"name": "cutor.nix", "content": expression}] if expression else []
    for id_, script in jobs.items():
        request = machine.path(f"/home/{user}/{id_}.json")
        request.write_text(json.dumps({"files": [{"name": "run.sh", "content": script}, *shell]}))
        request.chmod(0o644)
    machine.sh(f"cd ~{user} && cp {' '.join(f'{id_}.json' for id_ in jobs)} {SPOOL}/incoming/", user=user)


def responses(machine: Machine, user: str, ids: list[str], *, patience: float = PATIENCE) -> dict[str, Response]:
    """Wait for the responses of all ids, and return them."""
    missing = list(ids)

    def all_there() -> bool:
        done = machine.path(f"{SPOOL}/done")
        missing[:] = [id_ for id_ in missing if not (done / f"{id_}.response.json").exists()]
        return not missing

    wait_until(all_there, lambda: f"{missing}: no response\n{log(machine)}", patience=patience, pause=0.2)
    return {
        id_: msgspec.json.decode(machine.run("cat", f"{SPOOL}/done/{id_}.response.json", user=user), type=Response)
        for id_ in ids
    }


def answers(machine: Machine, user: str, ids: list[str], *, patience: float = PATIENCE) -> dict[str, str]:
    """Wait for the responses of all ids. Return what each program printed."""
    printed = {}
    for id_, response in responses(machine, user, ids, patience=patience).items():
        assert response.status is Status.COMPLETED, (response, log(machine))
        printed[id_] = response.run.stdout
    return printed


def log(machine: Machine) -> str:
    """Return the end of the daemons' log."""
    return machine.run("journalctl", "-o", "short-precise", "-n", "60", "-u", "spoold*")


def some_run(machine: Machine) -> bool:
    """Tell whether any submission runs now."""
    return any(machine.path(f"{SPOOL}/running").iterdir())


def jobs(prefix: str, count: int, script: str = "sleep 1; echo {}") -> dict[str, str]:
    """Return scripts by id. Each prints its number."""
    return {f"{prefix}-{number}": script.format(number) for number in range(count)}


def printed_by(wanted: dict[str, str]) -> dict[str, str]:
    """Return what the scripts of :func:`jobs` should print."""
    return {id_: f"{id_.rpartition('-')[2]}\n" for id_ in wanted}


def test_every_daemon_is_a_unit_that_runs(host: Machine) -> None:
    assert {role(unit) for unit in units(host)} >= {"intake", "executor", "builder", "health"}
    for unit in units(host):
        assert (host.show(unit, "ActiveState"), host.show(unit, "Result")) == ("active", "success")


def test_the_doctor_refuses_nothing(host: Machine) -> None:
    findings = json.loads(host.run("spoolctl", "doctor", "--json", check=False))["findings"]
    # The kernel is the host's, where these protections may be off.
    off = any(machine.sysctl(f"fs.protected_{name}") in ("", "0") for name in protection.PROTECTIONS)
    refused = {finding["what"]: finding for finding in findings if finding["level"] == "refused"}
    assert refused.keys() == ({protection.WHAT.name} if off else set()), refused


def test_what_the_documents_link_to_is_in_the_package(host: Machine) -> None:
    docs = host.path("/usr/share/doc/spoold/contrib/docs")
    pages = sorted(docs.rglob("*.md"))
    assert {page.name for page in pages} >= {page.name for page in (engines.REPOSITORY / "contrib/docs").rglob("*.md")}
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^):#]+)[)#]", page.read_text())]
    assert len(links) > 50
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
    (hello,) = [path.name for path in host.path("/var/spool/spoold/done").glob("hello-*.response.json")]
    asks = f"SSH_ORIGINAL_COMMAND=status {hello.removesuffix('.response.json')}"
    answer = host.run("/usr/libexec/spoold/ssh-gateway", user=USERS[0], env=(asks,))
    assert json.loads(answer)["status"] == "COMPLETED"


@pytest.mark.parametrize("page", ["man1/spoolctl.1", "man8/spoold.8", "man5/spoold.toml.5", "man5/spool-layout.5"])
def test_manual_pages_are_where_man_looks(host: Machine, page: str, tmp_path: Path) -> None:
    if shutil.which("mandoc") is None:
        engines.unavailable("not installed: mandoc")
    (tmp_path / "page.gz").write_bytes(host.path(f"/usr/share/man/{page}.gz").read_bytes())
    shown = subprocess.run(["mandoc", "-T", "utf8", tmp_path / "page.gz"], capture_output=True, text=True, check=True)
    assert "DESCRIPTION" in re.sub(".\b", "", shown.stdout)


def test_the_journal_is_asked_as_the_page_says(host: Machine) -> None:
    (ask,) = commands("Logs")
    drop(host, "bob", {"alice-ex3": "echo asked"})
    answers(host, "bob", ["alice-ex3"])
    wait_until(lambda: "alice-ex3" in host.sh(ask), lambda: log(host))


def test_metrics_are_where_the_page_puts_them(host: Machine) -> None:
    directory = "/var/lib/prometheus/node-exporter"  # made by node_exporter's package
    host.run("mkdir", "-p", directory)
    setting, rights = commands("Prometheus")
    assert directory in host.sh(setting)
    host.sh(rights)

    def daemons() -> set[str]:
        return {path.name.split("-")[1] for path in host.path(directory).iterdir()}

    wait_until(lambda: daemons() == {"intake", "executor", "builder", "health"}, lambda: f"{daemons()}\n{log(host)}")
    drop(host, "bob", {"measured": "echo measured"})
    answers(host, "bob", ["measured"])


def test_an_ordinary_user_is_told_by_the_doctor_to_be_root(host: Machine) -> None:
    text = host.run("spoolctl", "doctor", "--json", user=USERS[0], check=False)
    closed = [finding for finding in json.loads(text)["findings"] if "ermission" in finding["detail"]]
    assert closed
    assert all("root" in finding["remedy"] for finding in closed), closed


def test_users_cannot_read_each_others(host: Machine) -> None:
    for user in USERS:
        drop(host, user, {f"secret-of-{user}": "echo $0"})
        answers(host, user, [f"secret-of-{user}"])
    for user, other in (USERS, USERS[::-1]):
        for path in (f"done/secret-of-{other}.response.json", f"done/secret-of-{other}.json", "new", "running", "done"):
            read = host.run("sh", "-c", f"cat {SPOOL}/{path} || ls {SPOOL}/{path}/", user=user, check=False)
            assert read == "", (user, path)


def test_an_executor_without_capabilities_answers_strangers(host: Machine) -> None:
    """The executor keeps the response. The stranger can read it, and nothing else."""
    assert host.show("spoold-executor@1", "CapabilityBoundingSet") == ""
    response = f"{SPOOL}/done/stranger.response.json"
    drop(host, "bob", {"stranger": "echo hello"})
    assert answers(host, "bob", ["stranger"]) == {"stranger": "hello\n"}
    rights = host.run("stat", "--format=%U:%G %a", response)
    assert rights == "spoold-executor:spoold 640\n"
    before = host.run("cat", response)
    for forgery in (f"chmod 644 {response}", f"echo x >{response}", f"rm -f {response}", f"truncate -s 1 {response}"):
        assert host.run("sh", "-c", f"{forgery} 2>/dev/null || echo refused", user="bob") == "refused\n", forgery
    assert host.run("cat", response) == before
    assert host.run("spoolctl", "status", "stranger", "--json") == before
    found = json.loads(host.run("spoolctl", "doctor", "--json", check=False))["findings"]
    assert [each["level"] for each in found if each["what"] == "responses that only their owners read"] == ["fine"]


def test_answers_are_given_away_as_the_page_says(host: Machine) -> None:
    (drop_in,) = commands("Where there are no access control lists")
    settings = "/etc/spoold/spoold.toml"
    host.sh(f"cp {settings} /root/settings; sed -i 's|^#answers = .*|answers = \"owner\"|' {settings}")
    host.sh(drop_in)
    try:
        drop(host, "bob", {"given": "echo given"})
        assert answers(host, "bob", ["given"]) == {"given": "given\n"}
        assert host.run("stat", "--format=%U:%G %a", f"{SPOOL}/done/given.response.json") == "bob:bob 400\n"
        assert '"given\\n"' in host.run("spoolctl", "status", "given", "--json")
    finally:
        host.sh(f"cp /root/settings {settings}; rm /etc/systemd/system/spoold-*.d/answers-owner.conf")
        host.sh("systemctl daemon-reload && systemctl restart spoold.target")
    drop(host, "bob", {"kept": "echo kept"})
    answers(host, "bob", ["kept"])
    assert "spoold-executor" in host.run("stat", "--format=%U", f"{SPOOL}/done/kept.response.json")


@contextlib.contextmanager
def undone(host: Machine, undo: str) -> Iterator[None]:
    """Take back in the end what a page adds to the units."""
    try:
        yield
    finally:
        host.sh(f"{undo}\nsystemctl daemon-reload\nsystemctl restart spoold.target")


def test_daemons_are_root_for_a_file_server_as_the_page_says(host: Machine) -> None:
    (drop_in,) = commands("Daemons on a mounted spool")
    with undone(host, "rm /etc/systemd/system/spoold-*.d/nfs.conf"):
        host.sh(drop_in)
        users = {role(unit): host.show(unit, "User") for unit in units(host)}
        assert {name for name, user in users.items() if user == "root"} >= {"intake", "executor", "health"}
        drop(host, "bob", {"by-root": "echo by root"})
        assert answers(host, "bob", ["by-root"]) == {"by-root": "by root\n"}


def test_a_host_may_have_executors_alone_as_the_page_says(host: Machine) -> None:
    (block,) = commands("Several executors and hosts")
    again = (
        "systemctl disable --now spoold-executor@$(hostname)\n"
        "systemctl unmask spoold-intake spoold-builder spoold-health spoold-executor@1"
    )
    host.sh("systemctl stop spoold.target 'spoold-*'")
    with undone(host, again):
        host.sh(block)
        running = host.run("systemctl", "list-units", "--plain", "--no-legend", "--state=running", "spoold-*")
        assert [line.split()[0] for line in running.splitlines()] == [
            f"spoold-executor@{host.run('hostname').strip()}.service"
        ]


def test_an_executor_gets_rights_to_run_jobs_itself_as_the_page_says(host: Machine) -> None:
    """Jobs need cgroup v2 then. The executor itself runs anywhere."""
    (block,) = commands("Jobs without a Docker daemon")
    with undone(host, "rm /etc/systemd/system/spoold-executor@.service.d/oci.conf"):
        host.sh(block)
        assert "spoold-executor:200000:65536" in host.run("cat", "/etc/subuid")
        assert host.show("spoold-executor@1", "ActiveState") == "active"
        assert (host.show("spoold-executor@1", "NoNewPrivileges"), host.show("spoold-executor@1", "Delegate")) == (
            "no",
            "yes",
        )


def test_the_kernel_knows_what_the_page_switches_on(host: Machine) -> None:
    """The last command is left out, since it changes the kernel, which is that of the test's host."""
    (block,) = commands("Users of the drop box")
    write, _, rest = block.partition(" && ")
    assert rest == "sysctl --system\n"
    host.sh(write)
    said = host.sh("sysctl -n $(cut -d ' ' -f 1 /etc/sysctl.d/60-spoold.conf); rm /etc/sysctl.d/60-spoold.conf")
    assert len(said.split()) == len(protection.PROTECTIONS)


def test_a_daemon_that_is_killed_comes_back_and_nothing_is_lost(host: Machine) -> None:
    wanted = jobs("killed", 8)
    drop(host, "alice", wanted)
    # only daemons have a MainPID
    killed = {unit: pid for unit in units(host) if (pid := host.show(unit, "MainPID")) != "0"}
    for pid in killed.values():
        host.run("kill", "-KILL", pid)
        time.sleep(0.3)  # so that the others notice the death
    for unit, pid in killed.items():
        wait_until(
            lambda unit=unit, pid=pid: (  # type: ignore[misc] # mypy cannot infer it
                host.show(unit, "MainPID") not in ("0", pid) and host.show(unit, "ActiveState") == "active"
            ),
            lambda: log(host),
        )
    assert answers(host, "alice", list(wanted)) == printed_by(wanted)


def test_the_journal_tells_what_became_of_a_submission(host: Machine) -> None:
    drop(host, "bob", {"told": "echo told"})
    answers(host, "bob", ["told"])

    def records() -> list[dict[str, str]]:
        return host.journal("SPOOLD_SUBMISSION=told")

    # The answer can be read a moment before the log has it, and the journal takes it in later still.
    wait_until(lambda: any("COMPLETED" in record["MESSAGE"] for record in records()), lambda: log(host))
    assert {record["SPOOLD_ACTOR"] for record in records()} == {"executor"}


# --- what a daemon could do in an attacker's hands

ALLOWED = {
    "docker": {"executor"},
    "store": {"builder"},
    "above": set[str](),
    "sockets": {"builder"},  # for the namespaces of its downloads
    "network": set[str](),
    "spool": {"intake", "executor", "builder", "health"},
    "response": {"intake", "executor", "builder", "health"},  # by their group; its client can read it by a list
    "etc": set[str](),
    "usr": set[str](),
    "home": set[str](),
    "root": set[str](),
}


def test_daemons_reach_only_what_they_need(host: Machine) -> None:
    """A program makes each attempt in the place of the daemon, with all settings of the unit."""
    drop(host, "alice", {"hers": "echo hers"})
    answers(host, "alice", ["hers"])
    shutil.copy(Path(__file__).with_name("probe.py"), host.path("/opt/probe.py"))
    host.path("/root/secret").touch()
    daemons = [unit for unit in units(host) if role(unit) in ALLOWED["spool"]]
    could = {role(unit): probe(host, unit) for unit in daemons}
    for what, roles in ALLOWED.items():
        assert {name for name, seen in could.items() if seen[what] == ""} == roles, (what, could)
    for name, seen in could.items():
        assert seen["NoNewPrivs"] == "1", name
        assert seen["Seccomp"] == "2", name
        assert "0" not in seen["Uid"].split(), name
    assert len({seen["Uid"] for seen in could.values()}) == len(could)


def probe(machine: Machine, unit: str) -> dict[str, str]:
    """Run probe.py as ``unit`` runs its daemon. Return its findings."""
    name, at, instance = unit.removesuffix(".service").partition("@")
    text = machine.run("systemctl", "cat", unit).partition("\n[Install]")[0]
    ours = ("Type=", "ExecStart", "Restart", "Watchdog", "PartOf=")
    kept = [line for line in text.splitlines() if not line.startswith(ours)]
    kept += ["Type=oneshot", "StandardOutput=truncate:/run/probe", "ExecStart=/usr/bin/python3 /opt/probe.py"]
    machine.path(f"/run/systemd/system/probe-{name}{at}.service").write_text("\n".join(kept))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", f"probe-{name}{at}{instance}.service")
    found: dict[str, str] = json.loads(machine.path("/run/probe").read_text())
    return found


# --- the wall around builds

HELLO = "{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { packages = [ pkgs.hello ]; }"
EVIL = """{ pkgs ? import <nixpkgs> { } }: let evil = derivation {
  name = "evil"; system = builtins.currentSystem; builder = "${pkgs.bash}/bin/bash"; args = [ "-c" ''
    PATH=${pkgs.coreutils}/bin; p=${PATH}; chmod u+w $p $p/* && echo TROJAN > $p/PROGRAM && echo > $out'' ]; };
in pkgs.mkShell { inherit evil; }"""
TARGETS = {"hello": "pkgs.hello", "bash": "pkgs.bash", "env": "pkgs.coreutils", "python3": "pkgs.python3"}
# A build that takes too much memory in one process, loses that process and goes on.
TOLERANT = """{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell {
  lossy = pkgs.runCommand "lossy" { } ''(x=0123456789; while :; do x=$x$x; done) || lost=yes; echo lost=$lost > $out'';
}"""


@pytest.mark.parametrize("program", TARGETS)
def test_no_build_changes_what_others_use(host: Machine, program: str) -> None:
    evil = EVIL.replace("${PATH}", f"${{{TARGETS[program]}}}/bin").replace("PROGRAM", program)
    drop(host, "alice", {f"evil-{program}": "echo $evil"}, evil)
    (response,) = responses(host, "alice", [f"evil-{program}"]).values()
    assert response.status is Status.DEPENDENCIES_FAILED, response
    assert "Operation not permitted" in response.dependencies.stderr
    drop(host, "bob", {f"after-{program}": "hello"}, HELLO)
    assert "world" in answers(host, "bob", [f"after-{program}"])[f"after-{program}"]


def test_the_store_is_as_it_was_built(host: Machine) -> None:
    found = json.loads(host.run("spoolctl", "deps", "verify", "--json", timeout=2 * PATIENCE))
    assert found["paths"] > 20
    assert found["damaged"] == []
    said = host.run("sh", "-c", "spoolctl deps verify 2>&1", user="alice", check=False)
    assert "run this as root, or as that user" in said, said


def test_root_is_told_what_keeps_a_path(host: Machine) -> None:
    bash = json.loads(host.sh(f"cat {SPOOL}/builds/runtime.json"))["bash"]
    kept = json.loads(host.run("spoolctl", "deps", "why", f"{bash}/bin/bash", "--json"))["kept_by"]
    assert "runtime/bash" in {each["root"] for each in kept}
    assert host.sh("find /var/lib/spoold/nix/nix/var/nix/db -user root") == "", "files of root would block the builder"


def test_the_tools_of_root_run_nothing_of_the_builder_s(host: Machine) -> None:
    """They don't run it even from the builder's home of earlier versions.

    The tools begin with the unit's capabilities.
    """
    site = f"/var/lib/spoold/.local/lib/python{python_of(host)}/site-packages"
    planted = "open('/tmp/ran', 'a').close()"
    host.sh(f"""
        cp /etc/passwd /root/passwd
        sed -i '/^spoold-builder:/s#:/nonexistent:#:/var/lib/spoold:#' /etc/passwd
        mkdir -p {site}
        for name in usercustomize sitecustomize msgspec; do echo "{planted}" >{site}/$name.py; done
        chmod -R a+rX /var/lib/spoold/.local
        ln -sfn /etc/shadow /var/lib/spoold/var
    """)
    try:
        host.run("spoolctl", "doctor", check=False)
        assert json.loads(host.run("spoolctl", "deps", "verify", "--json"))["damaged"] == []
        host.run("systemctl", "restart", "spoold-builder")
    finally:
        host.sh("cp /root/passwd /etc/passwd; rm -r /var/lib/spoold/.local /var/lib/spoold/var")
    assert host.sh("ls /tmp/ran /var/lib/spoold/ran 2>/dev/null || :") == ""


def python_of(machine: Machine) -> str:
    """Return the version of the machine's Python, such as 3.11."""
    return machine.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


def test_a_store_of_somebody_else_is_not_verified_by_root(host: Machine) -> None:
    host.sh("mkdir -p ~alice/state/nix/nix/store ~alice/state/nix/nix/var; chown -R alice: ~alice/state")
    host.sh("echo '[nix]' >/root/hers.toml; echo \"state = '$(echo ~alice)/state'\" >>/root/hers.toml")
    said = host.sh("! spoolctl --config /root/hers.toml deps verify 2>&1")
    assert "run this as that user" in said


def test_the_builder_holds_no_capability(host: Machine) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in host.run("cat", f"/proc/{host.show('spoold-builder.service', 'MainPID')}/status").splitlines()
    )
    held = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert {int(value, 16) for value in held.values()} == {0}, held
    assert status["NoNewPrivs"] == "1"


def test_only_root_can_put_something_above_the_store(host: Machine) -> None:
    for path in ("/var/lib/spoold", "/var/lib/spoold/nix", "/var/lib/spoold/nix/nix"):
        assert host.run("stat", "-c", "%U", path) == "root\n"
        host.run("sh", "-c", f"! touch {path}/x && ! mv {path}/nix {path}/moved", user="spoold-builder")
    assert host.run("stat", "-c", "%U:%G %a", "/var/lib/spoold/nix/nix/store") == "spoold-builder:spoold-build 1771\n"


def test_a_build_that_the_kernel_pressed_is_no_build(host: Machine) -> None:
    host.sh("sed -i 's/^.builder.limits.$/&\\nmemory = 200000000/' /etc/spoold/spoold.toml")
    host.run("systemctl", "restart", "spoold-builder")
    try:
        drop(host, "alice", {"pressed": "cat $lossy"}, TOLERANT)
        (response,) = responses(host, "alice", ["pressed"]).values()
        assert response.status is Status.DEPENDENCIES_FAILED, (response, log(host))
        assert response.dependencies.outcome is Outcome.MEMORY_LIMIT, response
        drop(host, "bob", {"unaffected": "hello"}, HELLO)
        assert "world" in answers(host, "bob", ["unaffected"])["unaffected"]
    finally:
        host.sh("sed -i '/^memory = 200000000$/d' /etc/spoold/spoold.toml")
        host.run("systemctl", "restart", "spoold-builder")
    (lossy,) = host.sh("ls -d /var/lib/spoold/nix/nix/store/*-lossy || echo none").split()
    assert lossy == "none"


# --- reboots


def test_jobs_outlive_a_reboot_and_a_loss_of_power(host: Machine) -> None:
    wanted = jobs("rebooted", 10)
    drop(host, "alice", wanted)
    wait_until(lambda: some_run(host), lambda: log(host))  # some run, and some wait
    host.reboot()
    more = jobs("cut", 6)
    drop(host, "bob", more)
    wait_until(lambda: some_run(host), lambda: log(host))
    host.cut_power()
    assert answers(host, "alice", list(wanted)) == printed_by(wanted)
    assert answers(host, "bob", list(more)) == printed_by(more)


@pytest.mark.skipif(not REBOOTS, reason="$SPOOLD_TEST_REBOOTS is not set")
@pytest.mark.timeout(60 + 120 * max(REBOOTS, 1) * engines.SLOWNESS)
def test_hundreds_of_jobs_outlive_many_reboots(host: Machine) -> None:
    seed = time.time_ns() % 1000
    chance = random.Random(seed)  # noqa: S311 - no secret
    print(f"seed {seed}")
    host.sh("sed -i 's/^#mode = .*/mode = \"recycled\"/; s/^#slots = .*/slots = 4/' /etc/spoold/spoold.toml")
    host.run("systemctl", "restart", *units(host))
    wanted = jobs("many", 500, "sleep 0.2; echo {}")
    drop(host, "alice", wanted)
    for number in range(REBOOTS):
        time.sleep(chance.uniform(0, 3))
        (host.cut_power if chance.random() < 0.5 else host.reboot)()
        left = sum(not host.path(f"{SPOOL}/done/{id_}.response.json").exists() for id_ in wanted)
        print(f"reboot {number + 1}: {left} on their way")
    assert answers(host, "alice", list(wanted), patience=900 * engines.SLOWNESS) == printed_by(wanted)


# --- the package's upgrades and removal; these tests come last


# Make the state like an earlier version's: the builder owns all of it, and the files of its room are at the top.
EARLIER = """
systemctl stop 'spoold-*'
cd /var/lib/spoold
mv builder/* .
rmdir builder
chown -hR spoold-builder:spoold .
chmod 0700 .
chmod 0755 nix nix/nix
"""


def test_an_upgrade_takes_over_the_store_of_an_earlier_version(host: Machine, package: Path) -> None:
    drop(host, "alice", {"before": "hello"}, HELLO)
    answers(host, "alice", ["before"])
    inode = host.sh("ls -di /var/lib/spoold/nix/nix/store/*-hello-*")
    host.sh(EARLIER)
    host.sh("ln -s /etc/shadow /var/lib/spoold/pins/planted; chown -h spoold-builder: /var/lib/spoold/pins/planted")
    shadow = host.sh("stat -c '%U:%G %a' /etc/shadow")
    assert "spoolctl deps verify" in host.sh("spoolctl init 2>&1; systemctl start spoold.target")
    assert host.sh("stat -c '%U:%G %a' /etc/shadow") == shadow
    drop(host, "bob", {"taken-over": "hello"}, HELLO)
    assert "world" in answers(host, "bob", ["taken-over"])["taken-over"]
    assert host.sh("ls -di /var/lib/spoold/nix/nix/store/*-hello-*") == inode
    test_only_root_can_put_something_above_the_store(host)
    host.sh("systemctl stop 'spoold-*'; mv /var/lib/spoold/nix /var/lib/spoold/old; ln -s / /var/lib/spoold/nix")
    refused = host.sh("! spoolctl init 2>&1")
    assert "is a symbolic link" in refused
    host.sh("rm /var/lib/spoold/nix; mv /var/lib/spoold/old /var/lib/spoold/nix; systemctl start spoold.target")


def test_an_upgrade_loses_no_job(host: Machine, package: Path, tmp_path: Path) -> None:
    newer = repacked(package, tmp_path)
    wanted = jobs("upgraded", 6, "sleep 2; echo {}")
    drop(host, "alice", wanted)
    wait_until(lambda: some_run(host), lambda: log(host))
    host.path("/root").joinpath(package.name).unlink()
    shutil.copy(newer, host.path("/root"))
    for block in commands("Upgrade"):
        host.sh(block)
    assert "9:9" in host.run("dpkg-query", "--show", "spoold")
    assert answers(host, "alice", list(wanted)) == printed_by(wanted)
    for unit in units(host):
        wait_until(lambda unit=unit: host.show(unit, "ActiveState") == "active", lambda: log(host))  # type: ignore[misc] # mypy cannot infer it


def repacked(package: Path, directory: Path) -> Path:
    """Return the package with a newer version."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    control.write_text("".join("Version: 9:9\n" if line.startswith("Version:") else line for line in lines))
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, directory / "spoold_9.deb"], check=True
    )
    return directory / "spoold_9.deb"


def test_what_is_removed_leaves_the_spool_and_what_pip_installs_serves_it(host: Machine, tmp_path: Path) -> None:
    remove, _ = commands("Remove")
    host.sh(remove)
    assert host.run("systemctl", "list-units", "--plain", "--no-legend", "spoold*") == ""
    ours = "/usr/lib/spoold /usr/libexec/spoold /usr/share/spoold /etc/systemd/system/*.wants/spoold*"
    assert host.sh(f"find {ours} 2>/dev/null || :") == ""
    assert "told" in host.run("cat", f"{SPOOL}/done/told.response.json", user="bob")
    shutil.copytree(checkout_with_wheels(tmp_path, python_of(host)), host.path("/root/checkout"))
    offline = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/root/checkout/wheels")
    (by_pip,) = commands("Without the package")
    *_, enable, _ = commands("Install")
    host.sh(f"cd checkout\n{by_pip}\n{enable}", env=offline)
    drop(host, "alice", {"by-pip": "echo by pip"})
    assert answers(host, "alice", ["by-pip"]) == {"by-pip": "by pip\n"}
    ours = "/opt/spoold /usr/bin/spool* /usr/libexec/spoold /etc/systemd/system/spoold* /etc/*.d/spoold.conf"
    host.sh(f"systemctl disable --now spoold.target; rm -r {ours}; systemctl daemon-reload")


def checkout_with_wheels(directory: Path, python: str) -> Path:
    """Return a copy of this checkout with everything that pip would fetch for a Python. The machine has no network."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=engines.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(engines.REPOSITORY / name, directory / name)
    project = tomllib.loads((directory / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    fetch = ["/usr/bin/python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    fetch += ["--python-version", python, "--only-binary=:all:", "--dest", str(directory / "wheels")]
    subprocess.run([*fetch, *wanted], check=True)
    return directory


def test_a_later_installation_goes_on_and_a_purge_leaves_the_spool(host: Machine) -> None:
    drop(host, "bob", {"patient": "echo patient"})
    install, *_, enable, _ = commands("Install")
    host.sh(install)
    host.sh(enable)
    assert answers(host, "bob", ["patient"]) == {"patient": "patient\n"}
    _, purge = commands("Remove")
    host.sh(purge)
    assert host.sh("find /etc/spoold /usr/*/spoold /usr/share/doc/spoold /var/lib/spoold* 2>/dev/null || :") == ""
    assert "patient" in host.run("cat", f"{SPOOL}/done/patient.response.json", user="bob")
