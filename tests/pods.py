"""Pods as processes of this machine, restricted as Kubernetes restricts them: a kubelet without a cluster.

Each container has namespaces of its own (mounts, processes, network, host name), a root that is read-only, the volumes
of its manifest, its user, no capability, and the environment of its manifest and nothing else. Its program is process 1
there. Instead of an image it has the programs of this machine: /usr and /etc, this Python and its packages, and a
folder /app. All pods are on one bridge; a Service is a name in their /etc/hosts.

What is not like in a cluster: limits of CPU and memory do not bind, and of a network policy the ports do, but not the
peers. A pod that shares its process namespace has a shell as its first process, which reaps as Kubernetes's does.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.polled import START_PAUSE_S, eventually

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
_CLONE_NEWNET = 0x40000000
_PROGRAMS = ("unshare", "nsenter", "setpriv", "mount", "chroot", "ip", "iptables-restore")
_BRIDGE = "pods0"
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = ("/etc/alternatives", "/etc/group", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/passwd", "/etc/ssl")
_START_S = 60.0


def why_not() -> str:
    """Why there can be no such pods here; '' if there can."""
    if os.geteuid() != 0:
        return "pods as processes need root"
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"pods as processes need {', '.join(missing)} (util-linux, iproute2)"
    tried = "mount -t tmpfs tmpfs /mnt && ip link add pods0 type bridge && ip link add pods1 type veth peer name pods2"
    command = ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "sh", "-ec", tried]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"no namespaces here: {process.stderr.strip()}" if process.returncode else ""


def in_own_network(work: Callable[[], T]) -> T:
    """Call `work` in a thread, which has a network of its own, and so has every process that it starts."""

    def inside() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        for words in ("link set lo up", f"link add {_BRIDGE} type bridge", f"address add 10.88.0.1/24 dev {_BRIDGE}"):
            _run("ip", *words.split())
        _run("ip", "link", "set", _BRIDGE, "up")
        return work()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(inside).result()


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Container:
    """One container of a pod, which runs until its program ends."""

    def __init__(self, pod: Pod, spec: Mapping[str, Any], script: Path, environment: dict[str, str], log: Path) -> None:
        self.pod, self.spec, self.environment, self.log = pod, spec, environment, log
        words = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--fork",
            "--kill-child",
            "sh",
            str(script),
        ]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        own = os.readlink(f"/proc/{os.getpid()}/task/{_thread()}/ns/net")
        eventually("it has a network", lambda: os.readlink(f"/proc/{self._process.pid}/ns/net") != own, pause_s=0.002)
        far = ("type", "veth", "peer", "name", "eth0", "netns", str(self._process.pid))
        _run("ip", "link", "add", f"pod{pod.number}", *far)
        _run("ip", "link", "set", f"pod{pod.number}", "master", _BRIDGE, "up")
        eventually("its program has begun", self._has_begun, told=lambda: self.text)

    def _has_begun(self) -> bool:
        """Whether its root is its own, and no more that of this machine; or whether it has ended by now."""
        with contextlib.suppress(FileNotFoundError, IndexError, ProcessLookupError):
            return self.code is not None or os.readlink(f"/proc/{self.pid}/root") != "/"
        return False

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code of the program; None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The number of its program's process, outside."""
        first = _child(self._process.pid)
        return _child(first) if self.pod.spec.get("shareProcessNamespace") else first

    def first(self) -> list[int]:
        """The number, outside, of process 1 of its namespace; none where it has ended or not yet begun."""
        with contextlib.suppress(FileNotFoundError, IndexError, ProcessLookupError):
            return [_child(self._process.pid)]
        return []

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `kubectl exec` and probes do."""
        security = self.pod.security
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--uts", "--root", "--wd"]
        user = ["--setuid", str(security["runAsUser"]), "--setgid", str(security["runAsGroup"])]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        words = [*enter, *user, "env", "-i", *variables, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    def passes(self, probe: str) -> bool:
        """Whether one of its probes passes."""
        look = self.spec[probe]
        if "exec" in look:
            return self.code is None and self.execute(*look["exec"]["command"]).returncode == 0
        ports = {each["name"]: each["containerPort"] for each in self.spec["ports"]}
        get = look["httpGet"]
        return self.get(ports[get["port"]], get["path"])[0] == 200

    def get(self, port: int, path: str, **headers: str) -> tuple[int, str]:
        """What it answers to an HTTP request; (0, '') for none."""
        request = urllib.request.Request(f"http://{self.pod.address}:{port}{path}", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        """Return its exit code once its program has ended."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.pod.name} did not end in {timeout_s} s: {self.text}") from None

    def kill(self) -> None:
        """End all of its processes: with process 1 of a namespace ends every other one there."""
        for first in self.first():
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _thread() -> int:
    return int(os.readlink("/proc/thread-self").rpartition("/")[2])


class Pod:
    """A pod of a cluster."""

    def __init__(self, cluster: Cluster, workload: Mapping[str, Any], app: Path | None) -> None:
        self.workload, name, spec = workload, workload["metadata"]["name"], workload["spec"]["template"]["spec"]
        self.cluster, self.spec, self.number = cluster, spec, cluster.next_number()
        self.name, self.address = f"{name}-{self.number}", f"10.88.0.{self.number}"
        self.security = spec["securityContext"]
        self._app = app
        self._folder = cluster.folder / self.name
        self._folder.mkdir()
        self._volumes = {volume["name"]: self._volume(volume) for volume in spec["volumes"]}
        for number, each in enumerate(spec.get("initContainers", [])):
            made = self._started(each, f"init-{number}")
            assert made.wait(_START_S) == 0, made.text
            _unplug(self.number)
        (container,) = spec["containers"]
        self.container = self._started(container, container["name"])

    def start(self) -> Pod:
        """Wait until the pod is ready, by its probes."""
        for probe in ("startupProbe", "readinessProbe"):
            eventually(
                f"{self.name} passes its {probe}",
                lambda probe=probe: self._alive() and self.container.passes(probe),  # type: ignore[misc]
                _START_S,
                told=lambda: self.container.text,
                pause_s=START_PAUSE_S,
            )
        assert self.container.passes("livenessProbe"), self.container.text
        return self

    def _alive(self) -> bool:
        assert self.container.code is None, f"{self.name} ended with {self.container.code}: {self.container.text}"
        return True

    def terminate(self) -> None:
        """Tell it to end, as Kubernetes does when a pod is deleted."""
        self.container.signal(signal.SIGTERM)

    def end(self, *codes: int) -> None:
        """Delete it; its program has to end by itself, with one of these codes, within its time."""
        self.terminate()
        assert self.container.wait(min(60, self.spec["terminationGracePeriodSeconds"])) in codes, self.container.text

    # -- what the kubelet makes

    def _volume(self, volume: Mapping[str, Any]) -> Path:
        kind = next(name for name in volume if name != "name")
        if kind == "persistentVolumeClaim":
            return self.cluster.claim(volume[kind]["claimName"], self.security)
        if kind == "emptyDir":
            folder = self._folder / volume["name"]
            folder.mkdir()
            _give(folder, self.security, 0o2777)
            return folder
        source = volume[kind]
        data = self.cluster.secrets[source["secretName"]] if kind == "secret" else self.cluster.configs[source["name"]]
        items = {each["key"]: each["path"] for each in source.get("items", [])} or {name: name for name in data}
        return self._written(
            {path: data[key] for key, path in items.items()}, volume["name"], source.get("defaultMode", 0o644)
        )

    def _written(self, data: Mapping[str, bytes], name: str, mode: int) -> Path:
        """A volume of files as the kubelet makes them: root's, for the group, and each a link to a link."""
        folder = self._folder / name
        (folder / "..2026").mkdir(parents=True)
        (folder / "..data").symlink_to("..2026")
        for file, content in data.items():
            path = folder / "..2026" / file
            path.write_bytes(content)
            os.chown(path, 0, self.security["fsGroup"])
            path.chmod(mode)
            (folder / file).symlink_to(f"..data/{file}")
        _give(folder, self.security, 0o2755)
        return folder

    def _environment(self, spec: Mapping[str, Any]) -> dict[str, str]:
        found = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "HOSTNAME": self.name, "PYTHONUNBUFFERED": "1"}
        found |= {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "OMP_NUM_THREADS": "1"}
        for source in spec.get("envFrom", []):
            found |= {name: value.decode() for name, value in self.cluster.secrets[source["secretRef"]["name"]].items()}
        for each in spec.get("env", []):
            if "value" in each:
                found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], each["value"])
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                found[each["name"]] = self.cluster.secrets[reference["name"]][reference["key"]].decode()
        return found

    def _started(self, spec: Mapping[str, Any], name: str) -> Container:
        environment = self._environment(spec)
        script = self._folder / f"{name}.sh"
        script.write_text("\n".join(self._commands(spec, environment)) + "\n")
        return Container(self, spec, script, environment, self._folder / f"{name}.log")

    def _commands(self, spec: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
        """The script that makes the container, and then becomes its program."""
        root = self._folder / "root"
        root.mkdir(exist_ok=True)
        own = {Path("/usr"), ROOT, Path(sys.prefix), Path(sys.base_prefix)}
        own |= {Path(each) for each in sys.path if os.path.isdir(each)}
        mounts = [
            (self._volumes_of(mount), mount["mountPath"], mount.get("readOnly", False))
            for mount in spec["volumeMounts"]
        ]
        yield "set -e"
        yield f"hostname {self.name}"
        yield f"mount -t tmpfs -o mode=755 tmpfs {root}"
        for link in _LINKS:
            if os.path.islink(f"/{link}"):
                yield f"ln -s {os.readlink(f'/{link}')} {root}/{link}"
        yield f"mkdir -p {root}/dev {root}/proc {root}/app {root}/tmp"
        yield f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"
        yield f"mkdir {root}/dev/shm && mount -t tmpfs -o mode=1777,size=64m tmpfs {root}/dev/shm"
        for device in ("null", "zero", "full", "random", "urandom"):
            yield f"touch {root}/dev/{device} && mount --bind /dev/{device} {root}/dev/{device}"
        yield f"mount -t proc proc {root}/proc"
        yield f"mkdir {root}/etc && cp -a {' '.join(each for each in _ETC if os.path.exists(each))} {root}/etc"
        yield f"touch {root}/etc/hosts && mount --bind {self.cluster.hosts} {root}/etc/hosts"
        for source, path, read_only in mounts:
            yield _bound(source, root, Path(path), read_only=read_only)
        for folder in sorted(own):  # after the volumes: this checkout may lie below /tmp, where one is mounted
            if not any(other != folder and folder.is_relative_to(other) for other in own):
                yield _bound(folder, root, folder, read_only=True)
        if self._app is not None:
            yield _bound(self._app, root, Path("/app"), read_only=True)
        if spec["securityContext"]["readOnlyRootFilesystem"]:
            yield f"mount -o remount,ro {root}"
        yield "until ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done"
        yield f"ip link set lo up && ip address add {self.address}/24 dev eth0 && ip link set eth0 up"
        user, group, more = (self.security[name] for name in ("runAsUser", "runAsGroup", "fsGroup"))
        assert spec["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert spec["securityContext"]["allowPrivilegeEscalation"] is False
        bounds = "--bounding-set=-all --inh-caps=-all --no-new-privs --pdeathsig KILL"  # another user clears it
        variables = [f"{name}={value}" for name, value in environment.items()]
        words = shlex.join(["env", "-i", "-C", "/app", *variables, *spec.get("command", []), *spec.get("args", [])])
        yield f"iptables-restore <<'END'\n{self._rules()}END"
        program = f"chroot {root} setpriv --reuid {user} --regid {group} --groups {more} {bounds} {words}"
        yield f"{program} & wait $!" if self.spec.get("shareProcessNamespace") else f"exec {program}"

    def _rules(self) -> str:
        """The network policy of this pod, as rules of iptables. Probes and the operator come from the bridge."""
        labels = self.workload["spec"]["template"]["metadata"]["labels"]
        lines = ["*filter", ":INPUT ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
        for policy in self.cluster.policies:
            if policy["podSelector"]["matchLabels"].items() <= labels.items():
                lines += [
                    ":INPUT DROP [0:0]",
                    ":OUTPUT DROP [0:0]",
                    "-A INPUT -i lo -j ACCEPT",
                    "-A OUTPUT -o lo -j ACCEPT",
                ]
                for chain, rules in (("INPUT", policy.get("ingress", [])), ("OUTPUT", policy.get("egress", []))):
                    lines.append(f"-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
                    for port in (port for rule in rules for port in rule["ports"]):
                        lines.append(f"-A {chain} -p {port['protocol'].lower()} --dport {port['port']} -j ACCEPT")
                lines.append("-A INPUT -s 10.88.0.1 -j ACCEPT")
        return "\n".join([*lines, "COMMIT"]) + "\n"

    def _volumes_of(self, mount: Mapping[str, Any]) -> Path:
        found = self._volumes.get(mount["name"])
        return found or self.cluster.claim(f"{mount['name']}-{self.name.rpartition('-')[0]}-0", self.security)


def _bound(source: Path, root: Path, path: Path, *, read_only: bool) -> str:
    target = f"{root}{path}"
    line = f"mkdir -p {target} && mount --bind {source} {target}"
    return f"{line} && mount -o remount,ro,bind {target}" if read_only else line


def _unplug(number: int) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # the other end is gone, and so is this one
        _run("ip", "link", "delete", f"pod{number}")


def _give(folder: Path, security: Mapping[str, Any], mode: int) -> None:
    """Give a folder to the group of a pod, as the kubelet does for fsGroup."""
    os.chown(folder, 0, security["fsGroup"])
    folder.chmod(mode)


class Cluster:
    """Manifests, and the pods that a test makes of them. Use it within `in_own_network`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._numbers = folder, iter(range(10, 250))
        folder.mkdir(parents=True)
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.configs: dict[str, dict[str, bytes]] = {}
        self.policies: list[dict[str, Any]] = []
        self.pods: list[Pod] = []

    def next_number(self) -> int:
        return next(self._numbers)

    def apply(self, manifests: list[dict[str, Any]]) -> None:
        """Know the Secrets, ConfigMaps and network policies among these manifests."""
        for each in manifests:
            name, data = each["metadata"]["name"], each.get("data", {})
            if each["kind"] == "Secret":
                self.secrets[name] = {key: base64.b64decode(value) for key, value in data.items()}
            elif each["kind"] == "ConfigMap":
                self.configs[name] = {key: value.encode() for key, value in data.items()}
            elif each["kind"] == "NetworkPolicy":
                self.policies.append(each["spec"])

    def claim(self, name: str, security: Mapping[str, Any]) -> Path:
        """The folder of a claim, which belongs to the group of the first pod that mounts it."""
        folder = self.folder / "claims" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            _give(folder, security, 0o2775)
        return folder

    def pod(self, workload: Mapping[str, Any], *, app: Path | None = None) -> Pod:
        """Make a pod of a Deployment, a StatefulSet or a Job."""
        made = Pod(self, workload, app)
        self.pods.append(made)
        return made

    def serve(self, service: Mapping[str, Any], pod: Pod) -> None:
        """Let the names of a Service lead to this pod."""
        name, space = service["metadata"]["name"], service["metadata"]["namespace"]
        names = f"{name} {name}.{space} {name}.{space}.svc"
        lines = [line for line in self.hosts.read_text().splitlines() if name not in line.split()]
        self.hosts.write_text("\n".join([*lines, f"{pod.address} {names}"]) + "\n")  # the same file: it is mounted

    def close(self) -> None:
        """End all pods. Fails if a process of theirs runs on."""
        spaces = {_space(first) for pod in self.pods for first in pod.container.first()} - {""}
        for pod in self.pods:
            pod.container.kill()
            _unplug(pod.number)

        def are_gone() -> bool:
            return not any(each.isdigit() and _space(int(each)) in spaces for each in os.listdir("/proc"))

        eventually("no process of a pod runs on", are_gone)  # the kernel ends them one after the other


def _space(pid: int) -> str:
    """Which namespace of processes a process is in; '' for one that has ended, or is none of ours."""
    with contextlib.suppress(FileNotFoundError, PermissionError, ProcessLookupError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""
