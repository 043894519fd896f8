# SPDX-License-Identifier: MIT
"""Servers of other projects, each in a folder of its own, on a port of loopback that nobody uses, as an unprivileged user."""

import glob
import pwd

from harness import *


def unprivileged(*names):
    """What Popen takes to run something as the first of these users that there is; nothing if we are not root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next(name for name in (*names, "nobody") if name in known)
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


class Postgres:
    def __init__(self, path, port, process):
        self.path, self.port, self.process = path, port, process

    def conninfo(self, name):
        return f"hostaddr=127.0.0.1 port={self.port} user=postgres dbname=postgres application_name={name}"

    def ask(self, sql):
        """The answer as text; None if there is none."""
        done = subprocess.run(["psql", "-XAtq", "-d", self.conninfo("test"), "-c", sql], capture_output=True, text=True,
                              timeout=LIMIT, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def running(self, name):
        """How many queries of that program the server is working on."""
        answer = self.ask(f"select count(*) from pg_stat_activity where application_name = '{name}' and state = 'active'")
        return int(answer) if answer else 0


@contextlib.contextmanager
def postgres():
    binaries = os.path.dirname(shutil.which("postgres") or sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))[-1])
    who = unprivileged("postgres")
    with folder(who.get("user")) as path:
        data, port = path + "/data", free_port()
        subprocess.run([binaries + "/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"],
                       check=True, stdout=subprocess.DEVNULL, timeout=LIMIT * 4, cwd=path, **who)
        argv = [binaries + "/postgres", "-D", data, "-k", path, "-h", "127.0.0.1", "-p", str(port), "-F"]
        with running(argv, cwd=path, **who) as process:
            server = Postgres(path, port, process)
            wait_until(lambda: server.ask("select 1") == "1", "PostgreSQL answers")
            yield server


class Redis:
    def __init__(self, port):
        self.port = port

    def ask(self, *words):
        """The answer, as the protocol has it; None if there is none."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as connection:
            connection.sendall((" ".join(words) + "\r\nQUIT\r\n").encode())
            with connection.makefile() as answer:
                return answer.read()
        return None

    def blocked(self):
        """How many clients wait in a command that blocks."""
        return int(re.search(r"blocked_clients:(\d+)", self.ask("INFO", "clients")).group(1))


@contextlib.contextmanager
def redis():
    who = unprivileged("redis")
    with folder(who.get("user")) as path:
        port = free_port()
        argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", path, "--daemonize", "no"]
        with running(argv, cwd=path, **who):
            server = Redis(port)
            wait_until(lambda: server.ask("PING"), "Redis answers")
            yield server
