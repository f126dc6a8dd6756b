"""nginx as a receiver on loopback: answers 204 at once and logs when which webhook-id came to which path."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess

import processes
import psql

CONF = """
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    log_format receipt '$msec $http_webhook_id $uri';
    access_log {home}/receipts.log receipt buffer=64k flush=100ms;
    client_body_temp_path {home}/nginx-body;
    keepalive_requests 100000000;
    client_max_body_size 16m;
    {temp}
    server {{
        listen 127.0.0.1:{port}{tls};
        location / {{ return 204; }}
    }}
}}
"""
# Modules that a build may have: each wants a directory of its own even when it is not used.
MODULES = ("proxy", "fastcgi", "uwsgi", "scgi")


def certificates(home: pathlib.Path) -> None:
    """A certificate authority (ca.pem) and a certificate of 127.0.0.1 that it signed."""

    def openssl(*arguments) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    (home / "leaf.ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl(
        "req",
        "-x509",
        *key,
        "-days",
        2,
        "-subj",
        "/CN=bench authority",
        "-keyout",
        home / "ca.key",
        "-out",
        home / "ca.pem",
    )
    openssl("req", *key, "-subj", "/CN=127.0.0.1", "-keyout", home / "leaf.key", "-out", home / "leaf.csr")
    openssl("x509", "-req", "-in", home / "leaf.csr", "-CA", home / "ca.pem", "-CAkey", home / "ca.key", "-CAcreateserial",
            "-days", 2, "-extfile", home / "leaf.ext", "-out", home / "leaf.pem")  # fmt: skip


class Nginx:
    """A running nginx: its URL, and what it received."""

    def __init__(self, home: pathlib.Path, port: int, https: bool, pid: int):
        self.url = f"{'https' if https else 'http'}://127.0.0.1:{port}"
        self.pid = pid
        self.log = home / "receipts.log"
        self.read_to = 0

    def new_receipts(self) -> list[tuple[float, str, str]]:
        """(Unix time, webhook-id, path) of every request logged since the last call."""
        with self.log.open("rb") as log:
            log.seek(self.read_to)
            text = log.read()
        text = text[: text.rfind(b"\n") + 1]
        self.read_to += len(text)
        lines = (line.split(" ") for line in text.decode().splitlines())
        return [(float(at), event, path) for at, event, path in lines]

    def cpu_us(self) -> float:
        return sum(processes.cpu_us(pid) for pid in [self.pid, *processes.children(self.pid)])


@contextlib.contextmanager
def running(https: bool = False):
    """Starts nginx in the cluster's directory and stops it afterwards."""
    home = pathlib.Path(os.environ["CLUSTER_DIR"])
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if not program:
        raise SystemExit("this benchmark needs nginx (Debian: nginx-light)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if https:
        certificates(home)
    tls = f" ssl; ssl_certificate {home}/leaf.pem; ssl_certificate_key {home}/leaf.key" if https else ""
    temp = " ".join(f"{module}_temp_path {home}/nginx-{module};" for module in MODULES)
    (home / "nginx.conf").write_text(CONF.format(home=home, port=port, tls=tls, temp=temp))
    process = subprocess.Popen([program, "-c", home / "nginx.conf", "-e", home / "nginx-error.log"])
    try:

        def listening() -> bool:
            if process.poll() is not None:
                raise SystemExit((home / "nginx-error.log").read_text())
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        psql.wait_until("nginx to listen", listening, 10)
        yield Nginx(home, port, https, process.pid)
    finally:
        process.terminate()
        process.wait()
